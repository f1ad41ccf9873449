"""Partitioning by the day of a DATE column. No I/O.

https://cloud.google.com/bigquery/docs/partitioned-tables
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gardener_dagster.local.bigquery.catalog.schema import Field, Fields, find, quoted
from gardener_dagster.local.bigquery.errors import invalid, not_implemented, refuse_keys


@dataclass(frozen=True, kw_only=True)
class Partitioning:
    """The partitioning of a table.

    Attributes:
        column: the partitioning column.
    """

    column: Field

    @staticmethod
    def of(body: Mapping[str, Any], fields: Fields) -> "Partitioning":
        """Parse a ``TimePartitioning``.

        Raises:
            BigQueryError: the column is missing, or the partitioning is not supported.
        """
        name = str(body.get("field") or "")
        if not name:
            raise not_implemented("partitioning by ingestion time")
        refuse_keys(body, ("expirationMs", "requirePartitionFilter"), "timePartitioning")
        unit = str(body.get("type") or "DAY").upper()
        column = find(fields, name)
        if column is None:
            raise invalid(
                "The field specified for partitioning cannot be found in the schema: " + name
            )
        if unit != "DAY" or column.type != "DATE" or column.repeated:
            raise not_implemented(f"partitioning by {unit} of the {column.type} column {name}")
        return Partitioning(column=column)

    @property
    def id_sql(self) -> str:
        """DuckDB's expression for the id of a row's partition; NULL if the date is NULL."""
        return f"strftime({quoted(self.column.name)}, '%Y%m%d')"

    def where(self, partition: str) -> str:
        """Return DuckDB's condition for the rows of a partition.

        Raises:
            BigQueryError: the partition's name is not a date like ``20240301``.
        """
        try:
            date = dt.datetime.strptime(partition, "%Y%m%d").replace(tzinfo=dt.UTC).date()
        except ValueError as error:
            raise invalid(
                f'Invalid partition decorator "{partition}": expected a date like 20240301'
            ) from error
        return f"{quoted(self.column.name)} = DATE '{date}'"
