"""The five table operations: load, dedup, copy, delete, join."""
