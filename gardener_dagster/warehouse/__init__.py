"""Work on BigQuery's tables: names, schemas, queries, jobs. Imports no Dagster.

`operations.warehouse.Warehouse` is what the assets call. What imports google-cloud-bigquery
(2 CPU-seconds) is `operations`, `engine` and `answers`; `names`, `objects`, `errors` and `results`
do not, so that definitions and sensors can use those at no cost.
"""
