"""HTTP routes: read calls, call the catalog and the jobs, write JSON."""
