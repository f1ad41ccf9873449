"""The status page: problems, grid, lists of jobs, as HTML and JSON."""
