"""Work on BigQuery's tables: names, schemas, queries, jobs. Imports no Dagster.

The assets call `operations.warehouse.Warehouse`. `operations`, `engine` and `answers` import
google-cloud-bigquery (2 CPU-seconds); `names`, `objects`, `errors` and `results` do not, so that
definitions and sensors can import them cheaply.
"""
