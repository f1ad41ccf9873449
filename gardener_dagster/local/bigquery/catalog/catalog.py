"""Datasets and tables: create, find, change, delete.

Every method works in the caller's transaction. Rows are written by ``writes``, and counted by
``partitions``.
"""

import datetime as dt
import json
import re
from dataclasses import replace

from gardener_dagster.local.bigquery.catalog.database import Connection, Database
from gardener_dagster.local.bigquery.catalog.partitioning import Partitioning
from gardener_dagster.local.bigquery.catalog.schema import (
    Fields,
    column_list,
    find,
    from_json,
    merged,
    only_in,
    quoted,
    to_json,
)
from gardener_dagster.local.bigquery.catalog.table import Resource, Table, TableId, etag, millis
from gardener_dagster.local.bigquery.errors import (
    BigQueryError,
    duplicate,
    invalid,
    not_found,
    not_implemented,
    refuse_keys,
)

_DATASET_NAME = re.compile(r"\w{1,1024}", re.ASCII)
_TABLE_NAME = re.compile(r"[\w\- ]{1,1024}")
_OUTPUT_ONLY = frozenset(
    {"kind", "id", "etag", "selfLink", "creationTime", "lastModifiedTime", "location", "type"}
    | {"numRows", "numBytes", "tableReference", "datasetReference"}
)


class Catalog:
    """The datasets and tables of a server. Every project exists."""

    # -- datasets

    def datasets(self, connection: Connection, project: str) -> list[Resource]:
        """Return the datasets of a project, by name."""
        rows = connection.execute(
            "SELECT resource FROM catalog.datasets WHERE project = ? ORDER BY dataset", [project]
        ).fetchall()
        return [json.loads(text) for (text,) in rows]

    def find_dataset(self, connection: Connection, project: str, dataset: str) -> Resource | None:
        """Return a dataset; None if it does not exist."""
        row = connection.execute(
            "SELECT resource FROM catalog.datasets WHERE project = ? AND dataset = ?",
            [project, dataset],
        ).fetchone()
        return json.loads(row[0]) if row else None

    def dataset(self, connection: Connection, project: str, dataset: str) -> Resource:
        """Return a dataset.

        Raises:
            BigQueryError: it does not exist.
        """
        found = self.find_dataset(connection, project, dataset)
        if found is None:
            raise not_found("Dataset", f"{project}:{dataset}")
        return found

    def create_dataset(
        self, connection: Connection, project: str, body: Resource, now: dt.datetime
    ) -> Resource:
        """Create a dataset.

        Raises:
            BigQueryError: it exists, its name is invalid, or a property is not supported.
        """
        dataset = str((body.get("datasetReference") or {}).get("datasetId", ""))
        if not _DATASET_NAME.fullmatch(dataset):
            raise invalid(f'Invalid dataset ID "{dataset}". Dataset IDs must be alphanumeric (plus'
                          " underscores) and must be at most 1024 characters long.")  # fmt: skip
        expirations = ("defaultTableExpirationMs", "defaultPartitionExpirationMs")
        refuse_keys(body, expirations, "a dataset")
        if self.find_dataset(connection, project, dataset):
            raise duplicate("Dataset", f"{project}:{dataset}")
        resource = {k: v for k, v in body.items() if k not in _OUTPUT_ONLY} | {
            "kind": "bigquery#dataset",
            "id": f"{project}:{dataset}",
            "datasetReference": {"projectId": project, "datasetId": dataset},
            "location": body.get("location") or "US",
            "creationTime": str(millis(now)),
            "lastModifiedTime": str(millis(now)),
        }
        connection.execute(
            "INSERT INTO catalog.datasets VALUES (?, ?, ?)",
            [project, dataset, json.dumps(resource)],
        )
        return resource

    def delete_dataset(
        self, connection: Connection, project: str, dataset: str, *, contents: bool
    ) -> None:
        """Delete a dataset.

        Args:
            connection: the transaction.
            project: its project.
            dataset: its name.
            contents: whether to delete its tables as well.

        Raises:
            BigQueryError: it does not exist, or has tables and ``contents`` is false.
        """
        self.dataset(connection, project, dataset)
        tables = self.tables(connection, project, dataset)
        if tables and not contents:
            raise BigQueryError("resourceInUse", f"Dataset {project}:{dataset} is still in use")
        for table in tables:
            self.delete_table(connection, table)
        connection.execute(
            "DELETE FROM catalog.datasets WHERE project = ? AND dataset = ?", [project, dataset]
        )

    # -- tables

    def tables(self, connection: Connection, project: str, dataset: str) -> list[Table]:
        """Return the tables of a dataset, by name."""
        rows = connection.execute(
            "SELECT name, store, resource FROM catalog.tables"
            " WHERE project = ? AND dataset = ? ORDER BY name",
            [project, dataset],
        ).fetchall()
        return [
            Table(
                id=TableId(project=project, dataset=dataset, name=name),
                store=store,
                resource=json.loads(text),
            )
            for name, store, text in rows
        ]

    def find(self, connection: Connection, table: TableId) -> Table | None:
        """Return a table; None if it does not exist."""
        row = connection.execute(
            "SELECT store, resource FROM catalog.tables"
            " WHERE project = ? AND dataset = ? AND name = ?",
            [table.project, table.dataset, table.name],
        ).fetchone()
        return Table(id=table.whole, store=row[0], resource=json.loads(row[1])) if row else None

    def table(self, connection: Connection, table: TableId) -> Table:
        """Return a table.

        Raises:
            BigQueryError: it or its dataset does not exist.
        """
        found = self.find(connection, table)
        if found is None:
            self.dataset(connection, table.project, table.dataset)
            raise not_found("Table", table.whole)
        return found

    def create_table(
        self,
        connection: Connection,
        table: TableId,
        body: Resource,
        now: dt.datetime,
        *,
        store: str = "",
    ) -> Table:
        """Create a table.

        Args:
            connection: the transaction.
            table: its name.
            body: the ``Table`` resource.
            now: the current time.
            store: an existing DuckDB table that holds its rows; empty: create one.

        Raises:
            BigQueryError: its dataset does not exist, it exists, or it is invalid or not supported.
        """
        dataset = self.dataset(connection, table.project, table.dataset)
        if self.find(connection, table):
            raise duplicate("Table", table.whole)
        made = Table(
            id=table.whole,
            store=store or Database.new_store(),
            resource=_new_resource(table, body, dataset, now),
        )
        if not store:
            connection.execute(f"CREATE TABLE {made.store} ({column_list(made.fields)})")
        connection.execute(
            "INSERT INTO catalog.tables VALUES (?, ?, ?, ?, NULL, '')",
            [table.project, table.dataset, table.name, made.store],
        )
        self._put(connection, made)
        return made

    def _put(self, connection: Connection, table: Table) -> None:
        expires = table.resource.get("expirationTime")
        connection.execute(
            "UPDATE catalog.tables SET store = ?, expires = ?, resource = ?"
            " WHERE project = ? AND dataset = ? AND name = ?",
            [
                table.store,
                int(expires) if expires else None,
                json.dumps(table.resource),
                table.id.project,
                table.id.dataset,
                table.id.name,
            ],
        )

    def touch(
        self, connection: Connection, table: Table, now: dt.datetime, **changes: object
    ) -> Table:
        """Update a table's resource: set ``lastModifiedTime`` and apply ``changes``."""
        stamp = {"lastModifiedTime": str(millis(now))}
        made = replace(table, resource=table.resource | changes | stamp)
        self._put(connection, made)
        return made

    def patch_table(
        self,
        connection: Connection,
        table: TableId,
        body: Resource,
        *,
        if_match: str | None,
        now: dt.datetime,
    ) -> Table:
        """Add fields to a table's schema, and update field descriptions; refuse other changes.

        Args:
            connection: the transaction.
            table: its name.
            body: the ``Table`` resource, with the schema only.
            if_match: etag that the table must have; None or ``*``: any.
            now: the current time.

        Raises:
            BigQueryError: the table does not exist, its etag differs, a field is missing or
                has another type or mode, or the body sets another property.
        """
        have = self.table(connection, table)
        if if_match and if_match not in ("*", etag(have.resource)):
            raise BigQueryError("conditionNotMet", "Precondition check failed.")
        for key in body.keys() - _OUTPUT_ONLY - {"schema"}:
            raise not_implemented(f"a change of {key} of a table")
        wanted = from_json((body.get("schema") or {}).get("fields") or ())
        for path in only_in(have.fields, wanted):
            raise invalid(
                f"Provided Schema does not match Table {have.id}. Field {path} is missing in"
                " new schema"
            )
        return self.add_fields(connection, have, wanted, now)

    def add_fields(
        self, connection: Connection, table: Table, new: Fields, now: dt.datetime
    ) -> Table:
        """Add the fields that only ``new`` has. Existing rows get NULL or an empty array.

        Raises:
            BigQueryError: a field's type or mode would change.
        """
        fields = merged(table.fields, new, table=str(table.id))
        _grow(connection, table.store, (), table.fields, fields)
        return self.touch(connection, table, now, schema={"fields": to_json(fields)})

    def delete_table(self, connection: Connection, table: Table) -> None:
        """Delete a table with its rows."""
        connection.execute(f"DROP TABLE {table.store}")
        connection.execute("DELETE FROM catalog.partitions WHERE store = ?", [table.store])
        connection.execute("DELETE FROM catalog.tables WHERE store = ?", [table.store])


def _new_resource(table: TableId, body: Resource, dataset: Resource, now: dt.datetime) -> Resource:
    if not _TABLE_NAME.fullmatch(table.name) or table.partition:
        raise invalid(f'Invalid table ID "{table.reference["tableId"]}".')
    unsupported = ("view", "materializedView", "externalDataConfiguration", "rangePartitioning")
    refuse_keys(body, unsupported, "a table")
    fields = from_json((body.get("schema") or {}).get("fields") or ())
    if body.get("timePartitioning"):
        Partitioning.of(body["timePartitioning"], fields)
    return {k: v for k, v in body.items() if k not in _OUTPUT_ONLY and v is not None} | {
        "kind": "bigquery#table",
        "id": str(table),
        "tableReference": table.reference,
        "type": "TABLE",
        "location": dataset["location"],
        "schema": {"fields": to_json(fields)},
        "creationTime": str(millis(now)),
        "lastModifiedTime": str(millis(now)),
    }


def _grow(
    connection: Connection, store: str, path: tuple[str, ...], have: Fields, fields: Fields
) -> None:
    for field in fields:
        old = find(have, field.name)
        where = (*path, field.name)
        if old is None:
            name = ".".join(quoted(part) for part in where)
            empty = " DEFAULT []" if field.repeated and not path else ""
            connection.execute(f"ALTER TABLE {store} ADD COLUMN {name} {field.duckdb_type}{empty}")
        elif field.type == "RECORD":
            inner = (*where, "element") if field.repeated else where
            _grow(connection, store, inner, old.fields, field.fields)
