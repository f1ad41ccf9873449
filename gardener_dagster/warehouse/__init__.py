"""The five table operations on BigQuery: load, dedup, copy, delete, join.

`operations.Warehouse` is what the assets call. Nothing here imports dagster. The modules that
import google-cloud-bigquery (2 CPU-seconds) are `operations` and what it is made of; `names`,
`objects`, `errors` and `results` do not, so that definitions and sensors can use those at no cost.
"""
