"""BigQuery jobs: accepted, run in threads, kept in the database; load, query and copy."""
