"""A stand-in for BigQuery on one machine: its REST API, on DuckDB and sqlglot.

The ``google-cloud-bigquery`` client connects to it where ``BIGQUERY_EMULATOR_HOST`` is set. It
supports what the warehouse uses: tables partitioned by day, and load, query and copy jobs. It
refuses other requests with the reason ``notImplemented``. It checks no credentials.

- ``server``, ``testing``, ``__main__``: build the server; run it in a thread or as a process.
- ``rest/``: HTTP routes.
- ``jobs/``: the life of jobs, and the three kinds of jobs.
- ``loading/``: reads objects of JSON lines for load jobs.
- ``sql/``: translates and checks queries.
- ``catalog/``: datasets, tables, partitions, and the DuckDB file that holds them.
- ``faults``: errors that tests inject. ``errors``: BigQuery's errors.
"""
