"""Routes of datasets and tables.

https://cloud.google.com/bigquery/docs/reference/rest/v2/datasets and ``tables``.
"""

from starlette.routing import Route

from gardener_dagster.local.bigquery.catalog.database import Connection
from gardener_dagster.local.bigquery.catalog.partitions import (
    content,
    delete_partition,
    drop_expired_tables,
)
from gardener_dagster.local.bigquery.catalog.table import Resource, Table, TableId, etag
from gardener_dagster.local.bigquery.rest.calls import Call, Parts, route


class CatalogRoutes:
    """The routes of datasets and tables.

    Args:
        parts: the server's components.
    """

    def __init__(self, parts: Parts) -> None:
        self._database, self._catalog, self._now = parts.database, parts.catalog, parts.now

    def routes(self) -> list[Route]:
        """Return all routes."""
        dataset, table = "/datasets/{dataset}", "/datasets/{dataset}/tables/{table}"
        return [
            route("/datasets", "GET", self._list_datasets),
            route("/datasets", "POST", self._insert_dataset),
            route(dataset, "GET", self._get_dataset),
            route(dataset, "DELETE", self._delete_dataset),
            route(f"{dataset}/tables", "GET", self._list_tables),
            route(f"{dataset}/tables", "POST", self._insert_table),
            route(table, "GET", self._get_table),
            route(table, "PATCH", self._patch_table),
            route(table, "DELETE", self._delete_table),
        ]

    def _list_datasets(self, call: Call) -> Resource:
        with self._database.reading() as connection:
            found = self._catalog.datasets(connection, call.project)
        shown = [one for one in found if not one["datasetReference"]["datasetId"].startswith("_")]
        return {"kind": "bigquery#datasetList", "datasets": shown}

    def _insert_dataset(self, call: Call) -> Resource:
        with self._database.writing() as connection:
            made = self._catalog.create_dataset(connection, call.project, call.body, self._now())
        return made | {"etag": etag(made)}

    def _get_dataset(self, call: Call) -> Resource:
        with self._database.reading() as connection:
            found = self._catalog.dataset(connection, call.project, call.path["dataset"])
        return found | {"etag": etag(found)}

    def _delete_dataset(self, call: Call) -> None:
        contents = call.query.get("deleteContents", "").lower() == "true"
        with self._database.writing() as connection:
            self._catalog.delete_dataset(
                connection, call.project, call.path["dataset"], contents=contents
            )

    def _list_tables(self, call: Call) -> Resource:
        drop_expired_tables(self._database, self._catalog, self._now())
        with self._database.reading() as connection:
            self._catalog.dataset(connection, call.project, call.path["dataset"])
            found = self._catalog.tables(connection, call.project, call.path["dataset"])
        tables = [
            {key: value for key, value in table.resource.items() if key != "schema"}
            for table in found
        ]
        return {"kind": "bigquery#tableList", "tables": tables, "totalItems": len(tables)}

    def _insert_table(self, call: Call) -> Resource:
        reference = call.body.get("tableReference") or {}
        table = TableId.of(
            {"datasetId": call.path["dataset"], "tableId": reference.get("tableId")},
            project=call.project,
        )
        with self._database.writing() as connection:
            made = self._catalog.create_table(connection, table, call.body, self._now())
            return _described(connection, made, "")

    def _get_table(self, call: Call) -> Resource:
        drop_expired_tables(self._database, self._catalog, self._now())
        with self._database.reading() as connection:
            found = self._catalog.table(connection, call.table)
            found.where(call.table.partition)  # raises if the decorator is invalid
            return _described(connection, found, call.table.partition)

    def _patch_table(self, call: Call) -> Resource:
        with self._database.writing() as connection:
            made = self._catalog.patch_table(
                connection,
                call.table,
                call.body,
                if_match=call.headers.get("if-match"),
                now=self._now(),
            )
            return _described(connection, made, "")

    def _delete_table(self, call: Call) -> None:
        table = call.table
        with self._database.writing() as connection:
            if table.partition:
                delete_partition(connection, self._catalog, table, self._now())
            else:
                self._catalog.delete_table(connection, self._catalog.table(connection, table))


def _described(connection: Connection, table: Table, partition: str) -> Resource:
    """Return the table's resource with the rows and bytes of the table or of one partition."""
    found = content(connection, table, partition)
    resource = table.resource | {"etag": etag(table.resource)}
    if partition:
        name = f"{table.id.name}${partition}"
        resource["id"] = f"{table.id}${partition}"
        resource["tableReference"] = table.id.reference | {"tableId": name}
    return resource | {"numRows": str(found.rows), "numBytes": str(found.bytes)}
