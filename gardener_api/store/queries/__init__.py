"""Read the job store: jobs, dates, the status page's snapshot, metrics."""
