"""Datasets, tables, partitions and their rows, in one DuckDB file."""
