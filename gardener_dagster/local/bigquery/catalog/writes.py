"""Replace the rows of a table or partition: the last step of load, query and copy jobs.

A job first puts its rows into a staging table. Then, in one short transaction, they replace the
destination's rows.
"""

# ruff: noqa: S608 - this package quotes its identifiers and literals

import datetime as dt
from dataclasses import dataclass, replace

from gardener_dagster.local.bigquery.catalog.catalog import Catalog
from gardener_dagster.local.bigquery.catalog.database import Connection
from gardener_dagster.local.bigquery.catalog.partitions import measure
from gardener_dagster.local.bigquery.catalog.schema import (
    Fields,
    find,
    only_in,
    quoted,
    to_json,
)
from gardener_dagster.local.bigquery.catalog.table import Resource, Table, TableId
from gardener_dagster.local.bigquery.errors import invalid, not_found, not_implemented


@dataclass(frozen=True, kw_only=True)
class Write:
    """The destination and write options of a job. The job's rows replace existing rows.

    Attributes:
        destination: a partition, or an unpartitioned table.
        creates: whether the job may create a missing table; this is not supported.
        adds_fields: whether to add fields to the table that only the job's rows have.
    """

    destination: TableId
    creates: bool
    adds_fields: bool

    @staticmethod
    def of(body: Resource, *, project: str) -> "Write":
        """Parse a job's configuration.

        Args:
            body: its ``load``, ``query`` or ``copy`` part.
            project: default project of the destination.

        Raises:
            BigQueryError: an option is invalid or not supported. With WRITE_TRUNCATE,
                BigQuery accepts schema update options only for a partition:
                https://cloud.google.com/bigquery/docs/reference/rest/v2/Job#JobConfigurationLoad
                (``schemaUpdateOptions``).
        """
        destination = TableId.of(body.get("destinationTable") or {}, project=project)
        disposition = body.get("writeDisposition")
        if disposition != "WRITE_TRUNCATE":
            default = "the default writeDisposition, use WRITE_TRUNCATE"
            raise not_implemented(f"writeDisposition {disposition}" if disposition else default)
        updates = body.get("schemaUpdateOptions") or []
        if updates not in ([], ["ALLOW_FIELD_ADDITION"]):
            raise not_implemented(f"schemaUpdateOptions {', '.join(updates)}")
        if updates and not destination.partition:
            raise invalid(
                "Schema update options should only be specified with WRITE_APPEND disposition, or"
                " with WRITE_TRUNCATE disposition on a table partition."
            )
        return Write(
            destination=destination,
            creates=body.get("createDisposition") != "CREATE_NEVER",
            adds_fields=bool(updates),
        )

    def table(self, connection: Connection, catalog: Catalog) -> Table:
        """Return the destination's table.

        Raises:
            BigQueryError: it does not exist, or the job would replace a whole partitioned table.
        """
        table = catalog.find(connection, self.destination)
        if table is None:
            catalog.dataset(connection, self.destination.project, self.destination.dataset)
            if self.creates:
                raise not_implemented(f"a job that creates its table ({self.destination.whole})")
            raise not_found("Table", self.destination.whole)
        table.where(self.destination.partition)  # raises if the decorator is invalid
        if table.partitioning and not self.destination.partition:
            raise not_implemented(f"a job that replaces the whole partitioned table {table.id}")
        return table

    def apply(
        self,
        connection: Connection,
        catalog: Catalog,
        rows: str,
        fields: Fields,
        now: dt.datetime,
    ) -> Table:
        """Replace the destination's rows.

        Args:
            connection: the transaction.
            catalog: the catalog of the destination.
            rows: the DuckDB table of the new rows; an unpartitioned table adopts it as its store.
            fields: the schema of the rows.
            now: the current time.

        Raises:
            BigQueryError: the destination does not exist, its schema differs, or a row belongs to
                another partition.
        """
        table, partition = self.table(connection, catalog), self.destination.partition
        if not partition:
            connection.execute(f"DROP TABLE {table.store}")
            connection.execute("DELETE FROM catalog.partitions WHERE store = ?", [table.store])
            schema = {"fields": to_json(fields)}
            table = catalog.touch(connection, replace(table, store=rows), now, schema=schema)
            measure(connection, table, "", now)
            return table
        added = only_in(fields, table.fields)
        if added and not self.adds_fields:
            raise invalid(
                f"Provided Schema does not match Table {self.destination}. Cannot add fields"
                f" (field: {added[0]})"
            )
        table = catalog.add_fields(connection, table, fields, now)
        condition = table.where(partition)
        dated = table.partitioning and find(fields, table.partitioning.column.name)
        wrong = f"({condition}) IS NOT TRUE" if dated else "TRUE"
        if connection.execute(f"SELECT 1 FROM {rows} WHERE {wrong} LIMIT 1").fetchone():
            raise invalid(
                "Some rows belong to different partitions rather than destination partition"
                f" {partition}"
            )
        connection.execute(f"DELETE FROM {table.store} WHERE {condition}")
        _insert(connection, rows, table, fields)
        measure(connection, table, partition, now)
        return catalog.touch(connection, table, now)


def _insert(connection: Connection, rows: str, table: Table, fields: Fields) -> None:
    """Insert the rows; match columns and record fields by name. Absent fields get NULL or []."""
    columns = [field for field in table.fields if find(fields, field.name)]
    values = [f"CAST({quoted(field.name)} AS {field.duckdb_type})" for field in columns]
    absent = [field for field in table.fields if field.repeated and field not in columns]
    names = ", ".join(quoted(field.name) for field in [*columns, *absent])
    values += ["[]" for _ in absent]
    connection.execute(
        f"INSERT INTO {table.store} ({names}) SELECT {', '.join(values)} FROM {rows}"
    )
