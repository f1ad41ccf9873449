"""How a table is partitioned: by the day (hour, month, year) of a column. Pure.

https://cloud.google.com/bigquery/docs/partitioned-tables. Ingestion time and integer ranges are
not here.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gardener_dagster.local.bigquery.errors import invalid, not_implemented
from gardener_dagster.local.bigquery.schema import Field, Fields, find, quoted

NULL_PARTITION = "__NULL__"
"""Where rows are that have no time: partitioned-tables#null_and_unpartitioned_partitions."""

_FORMATS = {"YEAR": "%Y", "MONTH": "%Y%m", "DAY": "%Y%m%d", "HOUR": "%Y%m%d%H"}


@dataclass(frozen=True, kw_only=True)
class Partitioning:
    """Of a table, by time.

    Attributes:
        column: the partitioning column.
        unit: ``DAY``, ``HOUR``, ``MONTH`` or ``YEAR``.
        expiration: a partition goes away so long after it began; ``None``: never.
    """

    column: Field
    unit: str
    expiration: dt.timedelta | None

    @staticmethod
    def of(body: Mapping[str, Any], fields: Fields) -> "Partitioning":
        """From a ``TimePartitioning``.

        Raises:
            BigQueryError: the column is missing or has no time.
        """
        name = str(body.get("field") or "")
        if not name:
            raise not_implemented("Partitioning by ingestion time")
        column = find(fields, name)
        if column is None:
            raise invalid(
                "The field specified for partitioning cannot be found in the schema: " + name
            )
        if column.type not in ("DATE", "TIMESTAMP", "DATETIME") or column.repeated:
            raise invalid(
                f"The field specified for partitioning, {name}, must be a DATE, TIMESTAMP or"
                f" DATETIME; it is {column.mode} {column.type}"
            )
        unit = str(body.get("type") or "DAY").upper()
        if unit not in _FORMATS or (unit == "HOUR" and column.type == "DATE"):
            raise invalid(f"Invalid value for type: {unit} is no partitioning of {column.type}")
        life = body.get("expirationMs")
        return Partitioning(
            column=column,
            unit=unit,
            expiration=dt.timedelta(milliseconds=int(life)) if life else None,
        )

    @property
    def id_sql(self) -> str:
        """DuckDB's expression for the id of a row's partition."""
        name = quoted(self.column.name)
        return f"COALESCE(strftime({name}, '{_FORMATS[self.unit]}'), '{NULL_PARTITION}')"

    def start(self, partition: str) -> dt.datetime:
        """When a partition begins.

        Raises:
            BigQueryError: that is no partition's id.
        """
        try:
            start = dt.datetime.strptime(partition, _FORMATS[self.unit]).replace(tzinfo=dt.UTC)
        except ValueError as error:
            raise invalid(
                f'Invalid partition decorator "{partition}": expected {self.unit} partitions,'
                f" as {_FORMATS[self.unit]}"
            ) from error
        return start

    def where(self, partition: str) -> str:
        """DuckDB's condition for the rows of a partition.

        Raises:
            BigQueryError: that is no partition's id.
        """
        name = quoted(self.column.name)
        if partition == NULL_PARTITION:
            return f"{name} IS NULL"
        self.start(partition)
        kind = self.column.duckdb_type
        step = f"INTERVAL 1 {self.unit}"
        start = f"CAST('{self.start(partition):%Y-%m-%d %H:%M:%S}' AS {kind})"
        return f"({name} >= {start} AND {name} < {start} + {step})"

    def expires(self, partition: str) -> dt.datetime | None:
        """When a partition goes away: counted from its own time, not from when it was written.

        "the partition's expiration time is calculated from the partition boundary":
        https://cloud.google.com/bigquery/docs/managing-partitioned-tables#partition-expiration.
        So a partition that is older than the table keeps its partitions is gone once written.
        """
        if self.expiration is None or partition == NULL_PARTITION:
            return None
        return self.start(partition) + self.expiration
