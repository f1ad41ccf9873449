"""The job store on SQLite or PostgreSQL: the only package with SQL."""
