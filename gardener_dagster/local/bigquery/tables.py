"""What tables are called and how they look: the catalog's entries. Pure."""

import datetime as dt
import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from gardener_dagster.local.bigquery.errors import BigQueryError, invalid
from gardener_dagster.local.bigquery.partitioning import Partitioning
from gardener_dagster.local.bigquery.schema import Fields, from_json

Resource = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class TableId:
    """A table, or one of its partitions (``table$20240301`` in BigQuery's words)."""

    project: str
    dataset: str
    name: str
    partition: str = ""

    @staticmethod
    def of(reference: Resource, *, project: str = "") -> "TableId":
        """From a ``TableReference``.

        Raises:
            BigQueryError: it names no table.
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
        decorator = f"${self.partition}" if self.partition else ""
        return f"{self.project}:{self.dataset}.{self.name}{decorator}"

    @property
    def whole(self) -> "TableId":
        """The table without the partition."""
        return replace(self, partition="")

    @property
    def reference(self) -> Resource:
        """As the REST API has it."""
        name = f"{self.name}${self.partition}" if self.partition else self.name
        return {"projectId": self.project, "datasetId": self.dataset, "tableId": name}


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table as it is in the catalog.

    Attributes:
        store: the DuckDB table of its rows, in SQL.
    """

    id: TableId
    store: str
    resource: Resource

    @cached_property
    def fields(self) -> Fields:
        """Its schema."""
        return from_json(self.resource["schema"]["fields"])

    @cached_property
    def partitioning(self) -> Partitioning | None:
        """How it is partitioned, if it is."""
        body = self.resource.get("timePartitioning")
        return Partitioning.of(body, self.fields) if body else None

    @property
    def filter_required(self) -> bool:
        """Whether a query must name partitions."""
        old_style = (self.resource.get("timePartitioning") or {}).get("requirePartitionFilter")
        return bool(self.resource.get("requirePartitionFilter") or old_style)

    def where(self, partition: str) -> str:
        """DuckDB's condition for the rows of a partition; empty: for all.

        Raises:
            BigQueryError: the table has no partitions, or this is no partition's name.
        """
        if not partition:
            return "TRUE"
        if self.partitioning is None:
            raise invalid(
                f"Cannot read or write partition {partition}: table {self.id} is not partitioned"
            )
        return self.partitioning.where(partition)


def millis(now: dt.datetime) -> int:
    """A time as BigQuery's resources have it."""
    return int(now.timestamp() * 1000)


def etag(resource: Resource) -> str:
    """Changes whenever the resource does."""
    text = json.dumps(resource, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
