"""The tables' side of the gardener: Dagster assets, sensors and schedules over BigQuery."""
