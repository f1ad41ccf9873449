"""``gardener backfill``: plan dates that are processed again, ask Dagster for them, follow them."""
