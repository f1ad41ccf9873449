"""The step that makes the tables of one source on several dates."""
