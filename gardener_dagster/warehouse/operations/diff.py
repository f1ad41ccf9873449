"""Compares two versions of partitions: by the keys of their rows, and by columns. Changes nothing.

One query reads all dates. BigQuery cannot read a table at two points in time in one statement, so
a script first copies a past version to a temporary table:
https://cloud.google.com/bigquery/docs/reference/standard-sql/query-syntax#for_system_time_as_of
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gardener_dagster.warehouse.engine import Engine, Parameter
from gardener_dagster.warehouse.errors import BigQueryFailure, WarehouseError
from gardener_dagster.warehouse.names import (
    ONE_DAY,
    JobContext,
    Partition,
    SourceTables,
    Step,
    column_path,
    quoted_table,
)
from gardener_dagster.warehouse.operations.tables import Tables
from gardener_dagster.warehouse.queries import key_parts, query
from gardener_dagster.warehouse.results import (
    BqJob,
    ColumnDiff,
    DifferingRow,
    KeyDiff,
    TableVersion,
)

EXAMPLES = 5
"""Maximum number of differing rows to show."""
ALL_COLUMNS = "*"
_ALWAYS_DIFFERENT = frozenset({"date", "parser"})
"""Columns that `ALL_COLUMNS` excludes; `parser` differs in each parse."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Compares two versions of a source's partitions.

    Attributes:
        engine: runs the queries.
        source: the source whose tables are compared.
        key: the columns of the source's key.
        before: the version before; only this one may be a past one.
        after: the version after.
        first: the first date.
        last: the last date.
        run_id: value of the label `run` of the BigQuery jobs.
    """

    engine: Engine
    source: SourceTables
    key: Sequence[str]
    before: TableVersion
    after: TableVersion
    first: dt.date
    last: dt.date
    run_id: str

    def keys(self) -> tuple[list[KeyDiff], BqJob]:
        """Compare by keys. Reads the key's columns only.

        Returns:
            A difference for each date, and the query's job.

        Raises:
            WarehouseError: a table is missing, or BigQuery failed.
            ValueError: a part of the key is not a column name.
        """
        self._columns_of_tables  # noqa: B018 - raises if a table is missing
        sql = query("diff_keys", versions=self._versions(()), key_names=self._parts["key_names"])
        rows, job = self._select(sql, "keys")
        found = {row["date"]: KeyDiff(**row) for row in rows}
        return [found.get(date) or KeyDiff(date=date) for date in self._dates], job

    def columns(
        self, names: Sequence[str]
    ) -> tuple[list[ColumnDiff], list[DifferingRow], list[BqJob]]:
        """Compare, by columns, the rows that both versions have. Reads the key and these columns.

        Args:
            names: columns, or fields of records like `a.MeanThroughputMbps`; `ALL_COLUMNS`: all
                columns that both tables have, except the key, `date` and `parser`.

        Returns:
            A difference for each date, a few rows that differ, and the queries' jobs.

        Raises:
            WarehouseError: a table or a column is missing, or BigQuery failed.
            ValueError: a name is not a valid column name, or there is no column to compare.
        """
        names = self._named(names)
        differ = [f"before_{i} != after_{i}" for i in range(len(names))]
        counts = ", ".join(
            f"COUNTIF({differs}) AS differing_{i}" for i, differs in enumerate(differ)
        )
        rows, counted = self._pairs(
            names,
            selected=f"date, COUNT(*) AS compared, COUNTIF(differs) AS differing, {counts}",
            rest="GROUP BY date\nORDER BY date",
            part="columns",
        )
        found = {
            row["date"]: ColumnDiff(
                date=row["date"],
                compared=row["compared"],
                differing=row["differing"],
                columns={
                    name: row[f"differing_{i}"]
                    for i, name in enumerate(names)
                    if row[f"differing_{i}"]
                },
            )
            for row in rows
        }
        diffs = [found.get(date) or ColumnDiff(date=date, columns={}) for date in self._dates]
        if not any(diff.differing for diff in diffs):
            return diffs, [], [counted]
        rows, chosen = self._pairs(
            names,
            selected="*",
            rest=f"WHERE differs\nORDER BY date, {self._parts['key_names']}\nLIMIT {EXAMPLES}",
            part="examples",
        )
        examples = [
            DifferingRow(
                date=row["date"],
                key=tuple(str(row[f"key_{i}"]) for i in range(len(self.key))),
                columns={
                    name: (row[f"before_{i}"], row[f"after_{i}"])
                    for i, name in enumerate(names)
                    if row[f"before_{i}"] != row[f"after_{i}"]
                },
            )
            for row in rows
        ]
        return diffs, examples, [counted, chosen]

    # -- columns

    @cached_property
    def _columns_of_tables(self) -> tuple[list[str], list[str]]:
        """The columns of both tables."""
        before, after = (self._columns_of(version.table) for version in (self.before, self.after))
        return before, after

    def _columns_of(self, table: str) -> list[str]:
        schema = Tables(self.engine).schema(self._step, table)
        if not schema:
            raise WarehouseError(
                "there is no such table",
                operation="diff",
                table=table,
                advice="see the datasets in the configuration, and the name after --against",
            )
        return [str(column["name"]) for column in schema]

    def _named(self, names: Sequence[str]) -> list[str]:
        before, after = self._columns_of_tables
        left_out = _ALWAYS_DIFFERENT | set(self.key)
        wanted = [
            column
            for name in names
            for column in (
                [c for c in before if c in after and c not in left_out]
                if name == ALL_COLUMNS
                else [name]
            )
        ]
        for name in wanted:
            for table, columns in ((self.before.table, before), (self.after.table, after)):
                if name.partition(".")[0] not in columns:
                    raise WarehouseError(
                        f"there is no column {name!r}",
                        operation="diff",
                        table=table,
                        advice=f"name columns that both tables have; this one has"
                        f" {', '.join(columns)}",
                    )
        if not wanted:
            raise ValueError(
                f"no columns to compare: expected names of columns of {self.before.table}"
            )
        return list(dict.fromkeys(wanted))

    # -- queries

    def _pairs(
        self, names: Sequence[str], *, selected: str, rest: str, part: str
    ) -> tuple[list[dict[str, Any]], BqJob]:
        keys = range(len(self.key))
        pairs = [
            *(f"b.key_{i}" for i in keys),
            *(f"b.column_{i} AS before_{i}, a.column_{i} AS after_{i}" for i in range(len(names))),
        ]
        differs = " OR ".join(f"b.column_{i} != a.column_{i}" for i in range(len(names)))
        sql = query(
            "diff_pairs",
            versions=self._versions(names),
            key_names=self._parts["key_names"],
            pair_columns=", ".join(pairs),
            differs=f"({differs})",
            same_key=" AND ".join(f"a.key_{i} = b.key_{i}" for i in keys),
            selected=selected,
            rest=rest,
        )
        return self._select(sql, part)

    def _versions(self, names: Sequence[str]) -> str:
        """Return the start of a query: the definitions of `before_version` and `after_version`."""
        before, after = (self._version(version, names) for version in (self.before, self.after))
        if self.before.as_of is None:
            return f"WITH before_version AS (\n{before}\n),\nafter_version AS (\n{after}\n),"
        copy = f"CREATE TEMP TABLE before_version AS\n{before};"
        return f"{copy}\n\nWITH after_version AS (\n{after}\n),"

    def _version(self, version: TableVersion, names: Sequence[str]) -> str:
        columns = (
            f", TO_JSON_STRING(t.{column_path(name)}) AS column_{i}" for i, name in enumerate(names)
        )
        return query(
            "diff_version",
            table=quoted_table(self.engine.project, version.table),
            as_of=" FOR SYSTEM_TIME AS OF @as_of" if version.as_of else "",
            key_columns=self._parts["key_columns"],
            keyless=self._parts["keyless"],
            columns="".join(columns),
        )

    def _select(self, sql: str, part: str) -> tuple[list[dict[str, Any]], BqJob]:
        parameters = [
            Parameter("first", "DATE", self.first),
            Parameter("last", "DATE", self.last),
        ]
        if self.before.as_of is not None:
            parameters.append(Parameter("as_of", "TIMESTAMP", self.before.as_of))
        try:
            return self.engine.select(self._step, sql, parameters, part=part)
        except BigQueryFailure as error:
            if self.before.as_of is None or error.reason != "notImplemented":
                raise
            raise WarehouseError(
                f"this BigQuery has no time travel: {error.failure.message}",
                operation="diff",
                table=self.before.table,
                advice="compare with another table: leave --before out",
                reason=error.reason,
            ) from error

    @cached_property
    def _parts(self) -> dict[str, str]:
        return key_parts(self.key)

    @property
    def _dates(self) -> list[dt.date]:
        return [self.first + i * ONE_DAY for i in range((self.last - self.first).days + 1)]

    @cached_property
    def _step(self) -> Step:
        dataset, _, table = self.after.table.partition(".")
        return Step(
            operation="diff",
            tables=self.source,
            ctx=JobContext(run_id=self.run_id, date=self.first),
            partition=Partition(dataset=dataset, table=table, date=self.first),
        )
