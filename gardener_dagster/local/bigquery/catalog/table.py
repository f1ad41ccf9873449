"""Names of tables, and tables as the catalog describes them. No I/O."""

import datetime as dt
import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from gardener_dagster.local.bigquery.catalog.partitioning import Partitioning
from gardener_dagster.local.bigquery.catalog.schema import Fields, from_json
from gardener_dagster.local.bigquery.errors import BigQueryError, invalid

Resource = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class TableId:
    """The name of a table, or of one partition (``table$20240301``).

    Attributes:
        partition: the partition decorator's text; empty: the whole table.
    """

    project: str
    dataset: str
    name: str
    partition: str = ""

    @staticmethod
    def of(reference: Resource, *, project: str = "") -> "TableId":
        """Parse a ``TableReference``.

        Raises:
            BigQueryError: dataset or table is missing.
        """
        for key in ("datasetId", "tableId"):
            if not reference.get(key):
                raise BigQueryError("required", "Required parameter is missing", location=key)
        name, _, partition = str(reference["tableId"]).partition("$")
        return TableId(
            project=str(reference.get("projectId") or project),
            dataset=str(reference["datasetId"]),
            name=name,
            partition=partition,
        )

    def __str__(self) -> str:
        return f"{self.project}:{self.dataset}.{self.reference['tableId']}"

    @property
    def whole(self) -> "TableId":
        """The name of the table, without the partition."""
        return replace(self, partition="")

    @property
    def reference(self) -> Resource:
        """The ``TableReference``."""
        name = f"{self.name}${self.partition}" if self.partition else self.name
        return {"projectId": self.project, "datasetId": self.dataset, "tableId": name}


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table in the catalog.

    Attributes:
        store: SQL name of the DuckDB table that holds the rows.
        resource: the REST API's ``Table`` resource.
    """

    id: TableId
    store: str
    resource: Resource

    @cached_property
    def fields(self) -> Fields:
        """The schema."""
        return from_json(self.resource["schema"]["fields"])

    @cached_property
    def partitioning(self) -> Partitioning | None:
        """The table's partitioning; None: unpartitioned."""
        body = self.resource.get("timePartitioning")
        return Partitioning.of(body, self.fields) if body else None

    def where(self, partition: str) -> str:
        """Return DuckDB's condition for the rows of a partition; TRUE if ``partition`` is empty.

        Raises:
            BigQueryError: the table is not partitioned, or the partition's name is invalid.
        """
        if not partition:
            return "TRUE"
        if self.partitioning is None:
            raise invalid(
                f"Cannot read or write partition {partition}: table {self.id} is not partitioned"
            )
        return self.partitioning.where(partition)


def millis(now: dt.datetime) -> int:
    """Return a time in milliseconds since the Unix epoch, as in REST resources."""
    return int(now.timestamp() * 1000)


def etag(resource: Resource) -> str:
    """Return a hash of the resource's content."""
    text = json.dumps(resource, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
