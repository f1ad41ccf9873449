"""The view ``INFORMATION_SCHEMA.PARTITIONS`` of a dataset.

https://cloud.google.com/bigquery/docs/information-schema-partitions
"""

import sqlglot
from sqlglot import exp

from gardener_dagster.local.bigquery.catalog.catalog import Catalog
from gardener_dagster.local.bigquery.catalog.database import Connection
from gardener_dagster.local.bigquery.catalog.schema import literal
from gardener_dagster.local.bigquery.catalog.table import TableId
from gardener_dagster.local.bigquery.errors import not_implemented

_PARTITIONS = """
SELECT project AS table_catalog, dataset AS table_schema, name AS table_name,
  NULLIF(id, '') AS partition_id, row_count AS total_rows,
  COALESCE(list_sum(map_values(bytes)), 0)::BIGINT AS total_logical_bytes,
  to_timestamp(modified / 1000) AS last_modified_time
FROM catalog.partitions JOIN catalog.tables USING (store)
WHERE project = {project} AND dataset = {dataset}
"""


def view(node: exp.Table, connection: Connection, catalog: Catalog, default: TableId) -> exp.Expr:
    """Make the subquery that replaces the view.

    Args:
        node: the view's name in the query, like ``project.dataset.INFORMATION_SCHEMA.PARTITIONS``.
        connection: connection to the catalog.
        catalog: the catalog of the tables.
        default: default project and dataset.

    Raises:
        BigQueryError: the dataset does not exist, or the view is not supported.
    """
    dataset, project = node.db or default.dataset, node.catalog or default.project
    if node.name.upper() != "INFORMATION_SCHEMA.PARTITIONS":
        raise not_implemented(f"the view {node.name.upper()}")
    catalog.dataset(connection, project, dataset)
    sql = _PARTITIONS.format(project=literal(project), dataset=literal(dataset))
    alias = exp.to_identifier(node.alias or "PARTITIONS", quoted=True)
    return exp.Subquery(
        this=sqlglot.parse_one(sql, dialect="duckdb"), alias=exp.TableAlias(this=alias)
    )
