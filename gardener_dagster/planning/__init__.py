"""Decide which work is due. Pure functions, without Dagster, I/O and clock."""
