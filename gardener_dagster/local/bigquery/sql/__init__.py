"""GoogleSQL: parsed, checked, and translated to DuckDB's SQL."""
