"""Datasets and tables: what they are called, how they look, where their rows are.

Each function works within the caller's transaction. Rows of tables are ``writes``' business, their
numbers and bytes ``partitions``'.
"""

import datetime as dt
import json
import re
from dataclasses import replace

from gardener_dagster.local.bigquery.database import Connection, Database
from gardener_dagster.local.bigquery.errors import (
    BigQueryError,
    duplicate,
    invalid,
    not_found,
    not_implemented,
)
from gardener_dagster.local.bigquery.partitioning import Partitioning
from gardener_dagster.local.bigquery.schema import (
    Fields,
    column_list,
    find,
    from_json,
    merged,
    quoted,
    to_json,
)
from gardener_dagster.local.bigquery.tables import Resource, Table, TableId, etag, millis

_DATASET_NAME = re.compile(r"\w{1,1024}", re.ASCII)
_TABLE_NAME = re.compile(r"[\w\- ]{1,1024}")
_OUTPUT_ONLY = frozenset(
    {"kind", "id", "etag", "selfLink", "creationTime", "lastModifiedTime", "location", "type"}
    | {"numRows", "numBytes", "numLongTermBytes", "tableReference", "datasetReference"}
)


def _check_etag(resource: Resource, expected: str | None) -> None:
    if expected and expected not in ("*", etag(resource)):
        raise BigQueryError("conditionNotMet", "Precondition check failed.")


class Catalog:
    """The datasets and tables of a server; all projects exist."""

    # -- datasets

    def datasets(self, connection: Connection, project: str) -> list[Resource]:
        """Those of a project, by name."""
        rows = connection.execute(
            "SELECT resource FROM catalog.datasets WHERE project = ? ORDER BY dataset", [project]
        ).fetchall()
        return [json.loads(text) for (text,) in rows]

    def find_dataset(self, connection: Connection, project: str, dataset: str) -> Resource | None:
        """The dataset, ``None`` if there is none."""
        row = connection.execute(
            "SELECT resource FROM catalog.datasets WHERE project = ? AND dataset = ?",
            [project, dataset],
        ).fetchone()
        return json.loads(row[0]) if row else None

    def dataset(self, connection: Connection, project: str, dataset: str) -> Resource:
        """The dataset.

        Raises:
            BigQueryError: there is none.
        """
        found = self.find_dataset(connection, project, dataset)
        if found is None:
            raise not_found("Dataset", f"{project}:{dataset}")
        return found

    def create_dataset(
        self, connection: Connection, project: str, body: Resource, now: dt.datetime
    ) -> Resource:
        """Makes one.

        Raises:
            BigQueryError: it is there already, or its name is none.
        """
        dataset = str((body.get("datasetReference") or {}).get("datasetId", ""))
        if not _DATASET_NAME.fullmatch(dataset):
            raise invalid(f'Invalid dataset ID "{dataset}". Dataset IDs must be alphanumeric (plus'
                          " underscores) and must be at most 1024 characters long.")  # fmt: skip
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

    def patch_dataset(
        self,
        connection: Connection,
        project: str,
        dataset: str,
        body: Resource,
        *,
        if_match: str | None,
        now: dt.datetime,
    ) -> Resource:
        """Changes properties.

        Raises:
            BigQueryError: there is no such dataset, or it changed since ``if_match``.
        """
        resource = self.dataset(connection, project, dataset)
        _check_etag(resource, if_match)
        _patch(resource, body, now)
        connection.execute(
            "UPDATE catalog.datasets SET resource = ? WHERE project = ? AND dataset = ?",
            [json.dumps(resource), project, dataset],
        )
        return resource

    def delete_dataset(
        self, connection: Connection, project: str, dataset: str, *, contents: bool
    ) -> None:
        """Deletes one.

        Args:
            connection: the transaction.
            project: its project.
            dataset: its name.
            contents: its tables too.

        Raises:
            BigQueryError: there is none, or it has tables that are not to be deleted.
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
        """Those of a dataset, by name."""
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
        """The table, ``None`` if there is none."""
        row = connection.execute(
            "SELECT store, resource FROM catalog.tables"
            " WHERE project = ? AND dataset = ? AND name = ?",
            [table.project, table.dataset, table.name],
        ).fetchone()
        return Table(id=table.whole, store=row[0], resource=json.loads(row[1])) if row else None

    def table(self, connection: Connection, table: TableId) -> Table:
        """The table.

        Raises:
            BigQueryError: there is none.
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
        """Makes one.

        Args:
            connection: the transaction.
            table: its name.
            body: its resource, as the REST API has it.
            now: the time.
            store: the DuckDB table of its rows, if there is one already.

        Raises:
            BigQueryError: the dataset is missing, the table is there already, or cannot be.
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
            "INSERT INTO catalog.tables VALUES (?, ?, ?, ?, ?, ?)",
            [table.project, table.dataset, table.name, made.store, None, ""],
        )
        self.put(connection, made)
        return made

    def put(self, connection: Connection, table: Table) -> None:
        """Writes down how a table is now."""
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

    def touched(
        self, connection: Connection, table: Table, now: dt.datetime, **changes: object
    ) -> Table:
        """The table after its rows, and perhaps more, have changed."""
        stamp = {"lastModifiedTime": str(millis(now))}
        made = replace(table, resource=table.resource | changes | stamp)
        self.put(connection, made)
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
        """Changes properties; a schema may only grow.

        Raises:
            BigQueryError: there is no such table, it changed since ``if_match``, or a field would
                vanish or change.
        """
        have = self.table(connection, table)
        _check_etag(have.resource, if_match)
        body = dict(body)
        schema = body.pop("schema", None)
        if schema is not None:
            have = self._reshape(connection, have, from_json(schema.get("fields") or ()))
        partitioning = body.pop("timePartitioning", None)
        resource = dict(have.resource)
        if partitioning is not None:
            old = resource.get("timePartitioning")
            if old is None or partitioning.get("field", old.get("field")) != old.get("field"):
                raise invalid(f"Cannot change partitioning spec of table {table.whole}")
            _patch(resource, {"timePartitioning": old | partitioning}, now)
        _patch(resource, body, now)
        made = replace(have, resource=resource)
        self.put(connection, made)
        return made

    def _reshape(self, connection: Connection, have: Table, wanted: Fields) -> Table:
        missing = _lost(have.fields, wanted)
        if missing:
            raise invalid(
                f"Provided Schema does not match Table {have.id}. Field {missing} is missing in"
                " new schema"
            )
        return self.add_fields(connection, have, wanted)

    def add_fields(self, connection: Connection, table: Table, new: Fields) -> Table:
        """The table with the fields that only ``new`` has: NULL, or empty, in its rows.

        Raises:
            BigQueryError: a field's type or mode would change.
        """
        fields = merged(table.fields, new, table=str(table.id))
        if fields == table.fields:
            return table
        _grow(connection, table.store, (), table.fields, fields)
        made = replace(table, resource=table.resource | {"schema": {"fields": to_json(fields)}})
        self.put(connection, made)
        return made

    def delete_table(self, connection: Connection, table: Table) -> None:
        """Deletes a table with its rows."""
        connection.execute(f"DROP TABLE {table.store}")
        connection.execute("DELETE FROM catalog.partitions WHERE store = ?", [table.store])
        connection.execute("DELETE FROM catalog.tables WHERE store = ?", [table.store])


def _new_resource(table: TableId, body: Resource, dataset: Resource, now: dt.datetime) -> Resource:
    if not _TABLE_NAME.fullmatch(table.name):
        raise invalid(f'Invalid table ID "{table.name}".')
    for key in ("view", "materializedView", "externalDataConfiguration", "rangePartitioning"):
        if body.get(key):
            raise not_implemented(f"Table {table.whole} has {key}")
    fields = from_json((body.get("schema") or {}).get("fields") or ())
    resource = {k: v for k, v in body.items() if k not in _OUTPUT_ONLY and v is not None} | {
        "kind": "bigquery#table",
        "id": str(table.whole),
        "tableReference": table.whole.reference,
        "type": "TABLE",
        "location": dataset["location"],
        "schema": {"fields": to_json(fields)},
        "creationTime": str(millis(now)),
        "lastModifiedTime": str(millis(now)),
    }
    life = dataset.get("defaultTableExpirationMs")
    if life and not body.get("expirationTime") and not body.get("timePartitioning"):
        resource["expirationTime"] = str(millis(now) + int(life))
    if body.get("timePartitioning"):
        default = dataset.get("defaultPartitionExpirationMs")
        spec = ({"expirationMs": default} if default else {}) | body["timePartitioning"]
        Partitioning.of(spec, fields)  # refuses what cannot be
        resource["timePartitioning"] = {k: v for k, v in spec.items() if v is not None}
    return resource


def _patch(resource: Resource, body: Resource, now: dt.datetime) -> None:
    """Merges as a PATCH does: ``null`` removes, labels are merged one by one."""
    for key, value in body.items():
        if key in _OUTPUT_ONLY:
            continue
        if value is None:
            resource.pop(key, None)
        elif key == "labels":
            labels = {**resource.get("labels", {}), **value}
            resource[key] = {k: v for k, v in labels.items() if v is not None}
        else:
            resource[key] = value
    resource["lastModifiedTime"] = str(millis(now))


def _lost(have: Fields, wanted: Fields, path: str = "") -> str:
    for field in have:
        other = find(wanted, field.name)
        if other is None:
            return f"{path}{field.name}"
        if lost := _lost(field.fields, other.fields, f"{path}{field.name}."):
            return lost
    return ""


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
