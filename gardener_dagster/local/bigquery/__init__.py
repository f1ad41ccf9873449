"""BigQuery on this machine: its REST API, over DuckDB and sqlglot.

The real ``google-cloud-bigquery`` client talks to it where ``BIGQUERY_EMULATOR_HOST`` is set. It
does what a pipeline of load, query and copy jobs over day-partitioned tables needs, refuses what
BigQuery refuses, and says so where it does not do what BigQuery does. It checks no credentials:
it is for one machine.

From the wire down:

- ``server``, ``routes``, ``routes_catalog``, ``routes_jobs``, ``uploads``, ``pages``, ``faults``:
  HTTP. ``testing``: a server within a test's process.
- ``jobs``, ``task``, ``joblog``: jobs, their states and threads.
- ``load``, ``copying``, ``query``, ``dml``, ``ddl``: what jobs do. Of a load: ``objects``,
  ``ndjson``, ``rows``, ``autodetect``. Of a query: ``parameters``, ``translate``, ``functions``,
  ``binder``, ``scans``, ``planner``, ``information_schema``.
- ``writes``: results into their destination. ``partitions``: what is in a table, by partition.
- ``catalog``, ``tables``, ``partitioning``: datasets and tables. ``database``: DuckDB.
- ``schema``, ``cells``, ``errors``: BigQuery's types, values and errors.

Nothing is imported here.
"""
