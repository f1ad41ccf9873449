"""BigQuery on this machine: its REST API, over DuckDB and sqlglot.

The real ``google-cloud-bigquery`` client talks to it where ``BIGQUERY_EMULATOR_HOST`` is set. It
does what a pipeline of load, query and copy jobs over day-partitioned tables needs, refuses what
BigQuery refuses, and says so where it does not do what BigQuery does. It checks no credentials:
it is for one machine.

From the wire down:

- ``server``, ``routes_catalog``, ``routes_jobs``, ``uploads``, ``faults``: HTTP.
- ``jobs``, ``joblog``: jobs, their states and threads.
- ``load``, ``query``, ``statements``, ``copying``: what jobs do. Of a load: ``objects``,
  ``ndjson``, ``rows``, ``autodetect``. Of a query: ``parameters``, ``translate``, ``functions``,
  ``scans``, ``information_schema``.
- ``writes``: results into their destination. ``partitions``: what is in a table, by partition.
- ``catalog``: datasets and tables. ``database``: DuckDB.
- ``schema``, ``cells``, ``errors``: BigQuery's types, values and errors.

Nothing is imported here: the client's users import ``testing``, everybody else starts the module.
"""
