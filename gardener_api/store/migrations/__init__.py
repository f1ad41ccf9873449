"""The job store's migrations, run by alembic; ``gardener_api.store.migrate`` starts them.

A migration describes the tables as they were when it was written. It imports nothing of the
gardener, because the gardener's own tables and indexes go on changing.
"""
