"""``gardener demo``: sample archives through the whole pipeline."""
