"""Objects of JSON lines, read as BigQuery reads them."""
