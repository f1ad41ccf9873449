"""Datasets, tables and their rows over HTTP.

https://cloud.google.com/bigquery/docs/reference/rest/v2/datasets, ``tables``, ``tabledata``.
"""

from starlette.responses import Response
from starlette.routing import Route

from gardener_dagster.local.bigquery import pages
from gardener_dagster.local.bigquery.database import Connection
from gardener_dagster.local.bigquery.errors import invalid, not_implemented
from gardener_dagster.local.bigquery.partitions import (
    content,
    delete_partition,
    expire,
    reset_expirations,
)
from gardener_dagster.local.bigquery.routes import Call, Parts, blocking, listed
from gardener_dagster.local.bigquery.schema import Fields, find
from gardener_dagster.local.bigquery.tables import Resource, Table, etag

_IN_LISTS = (
    "kind", "id", "tableReference", "type", "creationTime", "expirationTime", "labels",
    "timePartitioning", "requirePartitionFilter", "clustering", "friendlyName",
)  # fmt: skip


class CatalogRoutes:
    """The routes.

    Args:
        parts: of the server.
    """

    def __init__(self, parts: Parts) -> None:
        self._database, self._catalog, self._now = parts.database, parts.catalog, parts.now

    def routes(self) -> list[Route]:
        """All of them."""
        dataset, table = "/datasets/{dataset}", "/datasets/{dataset}/tables/{table}"
        return [
            blocking("/datasets", "GET", self._list_datasets),
            blocking("/datasets", "POST", self._insert_dataset),
            blocking(dataset, "GET", self._get_dataset),
            blocking(dataset, "PATCH", self._patch_dataset),
            blocking(dataset, "PUT", self._patch_dataset),
            blocking(dataset, "DELETE", self._delete_dataset),
            blocking(f"{dataset}/tables", "GET", self._list_tables),
            blocking(f"{dataset}/tables", "POST", self._insert_table),
            blocking(table, "GET", self._get_table),
            blocking(table, "PATCH", self._patch_table),
            blocking(table, "PUT", self._patch_table),
            blocking(table, "DELETE", self._delete_table),
            blocking(f"{table}/data", "GET", self._list_rows),
            blocking(f"{table}/insertAll", "POST", self._insert_rows),
        ]

    def _list_datasets(self, call: Call) -> Resource:
        with self._database.reading() as connection:
            found = self._catalog.datasets(connection, call.project)
        shown = [
            one
            for one in found
            if call.flag("all") or not one["datasetReference"]["datasetId"].startswith("_")
        ]
        some, more = listed(shown, call)
        return {"kind": "bigquery#datasetList", "datasets": some} | more

    def _insert_dataset(self, call: Call) -> Resource:
        with self._database.writing() as connection:
            made = self._catalog.create_dataset(connection, call.project, call.body, self._now())
        return made | {"etag": etag(made)}

    def _get_dataset(self, call: Call) -> Resource:
        with self._database.reading() as connection:
            found = self._catalog.dataset(connection, call.project, call.path["dataset"])
        return found | {"etag": etag(found)}

    def _patch_dataset(self, call: Call) -> Resource:
        with self._database.writing() as connection:
            made = self._catalog.patch_dataset(
                connection,
                call.project,
                call.path["dataset"],
                call.body,
                if_match=call.headers.get("if-match"),
                now=self._now(),
            )
        return made | {"etag": etag(made)}

    def _delete_dataset(self, call: Call) -> None:
        with self._database.writing() as connection:
            self._catalog.delete_dataset(
                connection,
                call.project,
                call.path["dataset"],
                contents=call.flag("deleteContents"),
            )

    def _list_tables(self, call: Call) -> Resource:
        expire(self._database, self._catalog, self._now())
        with self._database.reading() as connection:
            self._catalog.dataset(connection, call.project, call.path["dataset"])
            found = self._catalog.tables(connection, call.project, call.path["dataset"])
        some, more = listed(found, call)
        tables = [{k: t.resource[k] for k in _IN_LISTS if k in t.resource} for t in some]
        head = {"kind": "bigquery#tableList", "totalItems": len(found)}
        return head | {"tables": tables} | more

    def _insert_table(self, call: Call) -> Resource:
        reference = call.body.get("tableReference") or {}
        names = {"dataset": call.path["dataset"], "table": str(reference.get("tableId") or "")}
        table = Call(path={**call.path, **names}, query={}, headers={}, body={}).table
        if table.partition:
            raise invalid(f"Invalid table ID {table.name}${table.partition}")
        with self._database.writing() as connection:
            made = self._catalog.create_table(connection, table, call.body, self._now())
            return _described(connection, made, "")

    def _get_table(self, call: Call) -> Resource:
        expire(self._database, self._catalog, self._now())
        with self._database.reading() as connection:
            found = self._catalog.table(connection, call.table)
            found.where(call.table.partition)  # refuses what is no partition
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
            if "timePartitioning" in call.body:
                reset_expirations(connection, made)
            return _described(connection, made, "")

    def _delete_table(self, call: Call) -> None:
        table = call.table
        with self._database.writing() as connection:
            if table.partition:
                delete_partition(connection, self._catalog, table, self._now())
            else:
                self._catalog.delete_table(connection, self._catalog.table(connection, table))

    def _list_rows(self, call: Call) -> Response:
        expire(self._database, self._catalog, self._now())
        with self._database.reading() as connection:
            table = self._catalog.table(connection, call.table)
            maximum = call.query.get("maxResults")
            head, rows = pages.page(
                connection,
                table,
                partition=call.table.partition,
                fields=_selected(table, call.query.get("selectedFields") or ""),
                start=call.number("pageToken", call.number("startIndex", 0)),
                maximum=call.number("maxResults", 0) if maximum else None,
                int64_timestamp=call.flag("formatOptions.useInt64Timestamp"),
            )
        return pages.answer({"kind": "bigquery#tableDataList"} | head, rows)

    def _insert_rows(self, call: Call) -> Resource:
        raise not_implemented(f"Streaming into {call.table}")


def _selected(table: Table, names: str) -> Fields:
    """The columns that ``selectedFields`` names.

    Raises:
        BigQueryError: the table has no such column.
    """
    if not names:
        return table.fields
    chosen = []
    for name in names.split(","):
        field = find(table.fields, name.split(".")[0])
        if field is None:
            raise invalid(f"No such field: {name}.", location="selectedFields")
        if field not in chosen:
            chosen.append(field)
    return tuple(field for field in table.fields if field in chosen)


def _described(connection: Connection, table: Table, partition: str) -> Resource:
    """The table's resource with its rows and bytes, or those of one partition."""
    found = content(connection, table, partition)
    resource = table.resource | {"etag": etag(table.resource)}
    if partition:
        name = f"{table.id.name}${partition}"
        resource["id"] = f"{table.id}${partition}"
        resource["tableReference"] = table.id.reference | {"tableId": name}
    size = str(found.bytes)
    return resource | {
        "numRows": str(found.rows),
        "numBytes": size,
        "numTotalLogicalBytes": size,
        "numLongTermBytes": "0",
    }
