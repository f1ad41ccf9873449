"""Rows into their destination, the same for load, query and copy jobs: all of them or none.

A job first puts its rows into a DuckDB table of its own, as long as that takes. Then, in one short
transaction, they become the destination's.
"""

# ruff: noqa: S608 - this package quotes its identifiers and literals

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gardener_dagster.local.bigquery.catalog import Catalog
from gardener_dagster.local.bigquery.database import Connection
from gardener_dagster.local.bigquery.errors import duplicate, invalid, not_found
from gardener_dagster.local.bigquery.partitioning import Partitioning
from gardener_dagster.local.bigquery.partitions import measure
from gardener_dagster.local.bigquery.schema import (
    REQUIRED,
    Fields,
    find,
    merged,
    only_in,
    quoted,
    relaxed_in,
    to_json,
)
from gardener_dagster.local.bigquery.tables import Resource, Table, TableId

APPEND, TRUNCATE, EMPTY = "WRITE_APPEND", "WRITE_TRUNCATE", "WRITE_EMPTY"
ADDITION, RELAXATION = "ALLOW_FIELD_ADDITION", "ALLOW_FIELD_RELAXATION"


@dataclass(frozen=True, kw_only=True)
class Write:
    """What a job wants to become of its rows.

    Attributes:
        destination: a table or a partition.
        disposition: what becomes of the rows that are there.
        create: whether a missing table is made.
        updates: how the table's schema may change.
        properties: of a table that is made: ``timePartitioning``, ``labels`` and the like.
    """

    destination: TableId
    disposition: str
    create: bool = True
    updates: frozenset[str] = frozenset()
    properties: Resource

    @staticmethod
    def of(body: Resource, *, project: str, disposition: str) -> "Write":
        """From a job's configuration.

        Args:
            body: of its ``load``, ``query`` or ``copy`` part.
            project: of a destination that names none.
            disposition: where the configuration names none.

        Raises:
            BigQueryError: it asks for what BigQuery does not do. Schema update options go with
                WRITE_APPEND, and with WRITE_TRUNCATE of one partition:
                https://cloud.google.com/bigquery/docs/reference/rest/v2/Job#JobConfigurationLoad
                (``schemaUpdateOptions``).
        """
        destination = TableId.of(body.get("destinationTable") or {}, project=project)
        chosen = _one_of(body, "writeDisposition", disposition, (APPEND, TRUNCATE, EMPTY))
        creates = ("CREATE_IF_NEEDED", "CREATE_NEVER")
        create = _one_of(body, "createDisposition", creates[0], creates)
        updates = frozenset(body.get("schemaUpdateOptions") or ())
        for option in sorted(updates - {ADDITION, RELAXATION}):
            raise invalid(f"Invalid value for schemaUpdateOptions: {option} is not a valid value")
        if updates and (chosen == EMPTY or (chosen == TRUNCATE and not destination.partition)):
            raise invalid(
                "Schema update options should only be specified with WRITE_APPEND disposition, or"
                " with WRITE_TRUNCATE disposition on a table partition."
            )
        kept = ("timePartitioning", "clustering")
        properties = {k: body[k] for k in kept if body.get(k)}
        properties |= body.get("destinationTableProperties") or {}
        return Write(
            destination=destination,
            disposition=chosen,
            create=create == creates[0],
            updates=updates,
            properties=properties,
        )

    def apply(
        self,
        connection: Connection,
        catalog: Catalog,
        rows: str,
        fields: Fields,
        now: dt.datetime,
    ) -> Table:
        """Makes the rows the destination's.

        Args:
            connection: the transaction.
            catalog: of the destination.
            rows: the DuckDB table that has them, with just these columns; it may become the
                destination's own.
            fields: their schema.
            now: the time.

        Raises:
            BigQueryError: the destination is not there, has rows already, or its schema differs;
                or a row is of another partition.
        """
        table = catalog.find(connection, self.destination)
        if table is None:
            return self._create(connection, catalog, rows, fields, now)
        if self.disposition == EMPTY and self._has_rows(connection, table):
            raise duplicate("Table", self.destination)
        if self.disposition == TRUNCATE and not self.destination.partition:
            return self._replace(connection, catalog, table, rows, fields, now)
        table = self._adapt(connection, catalog, table, fields)
        ids = self._partitions(connection, table, rows, fields)
        if self.disposition == TRUNCATE:
            condition = table.where(self.destination.partition)
            connection.execute(f"DELETE FROM {table.store} WHERE {condition}")
        check_required(connection, rows, table, fields)
        _insert(connection, rows, table, fields)
        measure(connection, table, now, ids)
        return catalog.touched(connection, table, now)

    def _create(
        self,
        connection: Connection,
        catalog: Catalog,
        rows: str,
        fields: Fields,
        now: dt.datetime,
    ) -> Table:
        catalog.dataset(connection, self.destination.project, self.destination.dataset)
        if not self.create:
            raise not_found("Table", self.destination.whole)
        body = self.properties | {"schema": {"fields": to_json(fields)}}
        if self.destination.partition:
            self._partitioning(body, fields).start(self.destination.partition)
        table = catalog.create_table(connection, self.destination, body, now, store=rows)
        self._partitions(connection, table, rows, fields)
        check_required(connection, rows, table, fields)
        measure(connection, table, now)
        return table

    def _partitioning(self, body: Resource, fields: Fields) -> Partitioning:
        """Of a table that is made because a partition of it is written."""
        spec = body.get("timePartitioning")
        if not spec:
            raise invalid(
                f"Cannot create {self.destination.whole} for partition"
                f" {self.destination.partition}: the job names no timePartitioning"
            )
        return Partitioning.of(spec, fields)

    def _replace(
        self,
        connection: Connection,
        catalog: Catalog,
        table: Table,
        rows: str,
        fields: Fields,
        now: dt.datetime,
    ) -> Table:
        """All rows and the schema; name, labels, partitioning and the like stay."""
        wanted = self.properties.get("timePartitioning")
        if table.partitioning is not None:
            Partitioning.of(table.resource["timePartitioning"], fields)
        if wanted and (
            table.partitioning is None
            or wanted.get("field") != table.resource["timePartitioning"].get("field")
        ):
            raise invalid(
                "Incompatible table partitioning specification."
                f" Table {table.id} is partitioned differently from what the job asks for"
            )
        connection.execute(f"DROP TABLE {table.store}")
        connection.execute("DELETE FROM catalog.partitions WHERE store = ?", [table.store])
        made = catalog.touched(
            connection,
            Table(id=table.id, store=rows, resource=table.resource),
            now,
            schema={"fields": to_json(fields)},
        )
        check_required(connection, rows, made, fields)
        measure(connection, made, now)
        return made

    def _adapt(
        self, connection: Connection, catalog: Catalog, table: Table, fields: Fields
    ) -> Table:
        """The table with what the job may change of its schema."""
        added = only_in(fields, table.fields)
        if added and ADDITION not in self.updates:
            raise invalid(
                f"Provided Schema does not match Table {self.destination}. Cannot add fields"
                f" (field: {added[0]})"
            )
        wanted = fields
        if RELAXATION not in self.updates:
            wanted = _as_strict_as(fields, table.fields)
        if added or relaxed_in(wanted, table.fields):
            return catalog.add_fields(connection, table, wanted)
        merged(table.fields, wanted, table=str(self.destination))  # refuses another type or mode
        return table

    def _has_rows(self, connection: Connection, table: Table) -> bool:
        condition = table.where(self.destination.partition)
        found = connection.execute(f"SELECT 1 FROM {table.store} WHERE {condition} LIMIT 1")
        return found.fetchone() is not None

    def _partitions(
        self, connection: Connection, table: Table, rows: str, fields: Fields
    ) -> list[str] | None:
        """Ids of the partitions that the rows go to; ``None``: the table has none."""
        partition = self.destination.partition
        partitioning = table.partitioning
        if partitioning is None:
            table.where(partition)  # refuses a decorator
            return None
        if find(fields, partitioning.column.name) is None:
            found = ["__NULL__"]
        else:
            rows_ids = connection.execute(
                f"SELECT DISTINCT {partitioning.id_sql} FROM {rows}"
            ).fetchall()
            found = sorted(one for (one,) in rows_ids)
        if partition and set(found) - {partition}:
            raise invalid(
                "Some rows belong to different partitions rather than destination partition"
                f" {partition}"
            )
        return [partition] if partition else found


def _one_of(body: Resource, key: str, default: str, values: Sequence[str]) -> str:
    value = str(body.get(key) or default)
    if value not in values:
        raise invalid(f"Invalid value for {key}: {value} is not a valid value")
    return value


def _as_strict_as(fields: Fields, table: Fields) -> Fields:
    """A query's result is NULLABLE throughout: that alone does not relax a table."""
    made = []
    for field in fields:
        other = find(table, field.name)
        if other is None:
            made.append(field)
            continue
        mode = REQUIRED if other.mode == REQUIRED and not field.repeated else field.mode
        made.append(replace(field, mode=mode, fields=_as_strict_as(field.fields, other.fields)))
    return tuple(made)


def check_required(connection: Connection, rows: str, table: Table, fields: Fields) -> None:
    """Refuses rows without a value that the table requires.

    Args:
        connection: the transaction.
        rows: the DuckDB table that has them.
        table: they go to.
        fields: their schema.

    Raises:
        BigQueryError: there are such rows.
    """
    for field in table.fields:
        if field.mode != REQUIRED:
            continue
        name = quoted(field.name)
        missing = find(fields, field.name) is None
        condition = "TRUE" if missing else f"{name} IS NULL"
        if connection.execute(f"SELECT 1 FROM {rows} WHERE {condition} LIMIT 1").fetchone():
            raise invalid(f"Required field {field.name} cannot be null")


def _insert(connection: Connection, rows: str, table: Table, fields: Fields) -> None:
    """By name; DuckDB casts records by name too, and fills in NULL."""
    columns = [f for f in table.fields if find(fields, f.name)]
    values = [f"CAST({quoted(f.name)} AS {f.duckdb_type})" for f in columns]
    absent = [f for f in table.fields if f.repeated and not find(fields, f.name)]
    names = ", ".join(quoted(f.name) for f in [*columns, *absent])
    values += ["[]" for _ in absent]
    if names:
        connection.execute(
            f"INSERT INTO {table.store} ({names}) SELECT {', '.join(values)} FROM {rows}"
        )
