"""INFORMATION_SCHEMA: the views TABLES, COLUMNS and PARTITIONS of a dataset.

https://cloud.google.com/bigquery/docs/information-schema-intro
"""

# ruff: noqa: S608 - this package quotes its identifiers and literals

from collections.abc import Sequence

import sqlglot
from sqlglot import exp

from gardener_dagster.local.bigquery.catalog import Catalog
from gardener_dagster.local.bigquery.database import Connection
from gardener_dagster.local.bigquery.errors import invalid_query, not_implemented
from gardener_dagster.local.bigquery.schema import REQUIRED, literal
from gardener_dagster.local.bigquery.tables import TableId

_PARTITIONS = """
SELECT project AS table_catalog, dataset AS table_schema, name AS table_name,
  NULLIF(id, '') AS partition_id, row_count AS total_rows,
  COALESCE(list_sum(map_values(bytes)), 0)::BIGINT AS total_logical_bytes,
  0::BIGINT AS total_billable_bytes, to_timestamp(modified / 1000) AS last_modified_time,
  'ACTIVE' AS storage_tier
FROM catalog.partitions JOIN catalog.tables USING (store)
WHERE project = {project} AND dataset = {dataset}
"""


def view(node: exp.Table, connection: Connection, catalog: Catalog, default: TableId) -> exp.Expr:
    """The subquery that stands for a view.

    Args:
        node: names it, like ``project.dataset.INFORMATION_SCHEMA.TABLES``.
        connection: to read the catalog.
        catalog: of the tables.
        default: project and dataset where the name has none.

    Raises:
        BigQueryError: there is no such dataset or view.
    """
    name = node.name.upper().removeprefix("INFORMATION_SCHEMA.")
    dataset = node.db or default.dataset
    project = node.catalog or default.project
    if not dataset:
        raise invalid_query(f'Table "{node.name}" must be qualified with a dataset')
    if dataset.lower().startswith("region-"):
        raise not_implemented(f"INFORMATION_SCHEMA of a region: {dataset}")
    catalog.dataset(connection, project, dataset)
    if name == "PARTITIONS":
        sql = _PARTITIONS.format(project=literal(project), dataset=literal(dataset))
    elif name == "TABLES":
        sql = _tables(connection, catalog, project, dataset)
    elif name == "COLUMNS":
        sql = _columns(connection, catalog, project, dataset)
    else:
        raise not_implemented(f"The view INFORMATION_SCHEMA.{name}")
    alias = node.alias or name
    query = sqlglot.parse_one(sql, dialect="duckdb")
    return exp.Subquery(
        this=query, alias=exp.TableAlias(this=exp.to_identifier(alias, quoted=True))
    )


def _tables(connection: Connection, catalog: Catalog, project: str, dataset: str) -> str:
    names = (
        "table_catalog", "table_schema", "table_name", "table_type", "is_insertable_into",
        "creation_time",
    )  # fmt: skip
    rows = [
        (
            literal(project),
            literal(dataset),
            literal(table.id.name),
            "'BASE TABLE'",
            "'YES'",
            f"to_timestamp({int(table.resource['creationTime'])} / 1000)",
        )
        for table in catalog.tables(connection, project, dataset)
    ]
    return _values(names, rows)


def _columns(connection: Connection, catalog: Catalog, project: str, dataset: str) -> str:
    names = (
        "table_catalog", "table_schema", "table_name", "column_name", "ordinal_position",
        "is_nullable", "data_type", "is_partitioning_column",
    )  # fmt: skip
    rows = []
    for table in catalog.tables(connection, project, dataset):
        partitioning = table.partitioning
        for position, field in enumerate(table.fields, 1):
            divides = partitioning is not None and partitioning.column.name == field.name
            rows.append(
                (
                    literal(project),
                    literal(dataset),
                    literal(table.id.name),
                    literal(field.name),
                    f"{position}::BIGINT",
                    "'NO'" if field.mode == REQUIRED else "'YES'",
                    literal(field.standard_type),
                    "'YES'" if divides else "'NO'",
                )
            )
    return _values(names, rows)


def _values(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A query that gives these rows."""
    columns = ", ".join(names)
    if not rows:
        return f"SELECT {', '.join(f'NULL AS {name}' for name in names)} WHERE FALSE"
    values = ", ".join(f"({', '.join(row)})" for row in rows)
    return f"SELECT * FROM (VALUES {values}) AS v({columns})"
