"""Looks at partitions: how many rows, how unique, where from, how old. Changes nothing.

What is asked is how things are now, so but for one exception no BigQuery job id is used twice.
"""

import datetime as dt
import uuid
from collections.abc import Sequence

from gardener_dagster.warehouse.engine import Engine, Parameter, Step
from gardener_dagster.warehouse.names import (
    JobContext,
    Partition,
    SourceTables,
    project_id,
    quoted_table,
)
from gardener_dagster.warehouse.results import KeyCount, Origin, TmpPartition
from gardener_dagster.warehouse.sql import key_parts, query
from gardener_dagster.warehouse.tables import Tables


class Survey:
    """Read-only queries over the tables of a source."""

    def __init__(self, engine: Engine, tables: Tables) -> None:
        self._engine, self._tables = engine, tables

    def count_rows(
        self, tables: SourceTables, partitions: Sequence[Partition], ctx: JobContext
    ) -> list[int]:
        """How many rows each partition has; 0 where it is missing. Reads the date at most."""
        step = self._step(tables, partitions[0], ctx)
        names = {partition.table_id for partition in partitions}
        known = {name for name in sorted(names) if self._tables.get(step, name) is not None}
        present = [(i, p) for i, p in enumerate(partitions) if p.table_id in known]
        counts = [0] * len(partitions)
        if present:
            parts = (query("count", index=str(i), table=self._quoted(p)) for i, p in present)
            parameters = [Parameter(f"date_{i}", "DATE", p.date) for i, p in present]
            rows, _ = self._engine.select(
                step, "\nUNION ALL\n".join(parts), parameters, part=_unique("rows")
            )
            for row in rows:
                counts[row["part"]] = row["row_count"]
        return counts

    def count_keys(
        self, tables: SourceTables, partition: Partition, key: Sequence[str], ctx: JobContext
    ) -> KeyCount:
        """How unique the keys of a partition are. Reads the key's columns.

        Raises:
            ValueError: the key is not made of column names.
        """
        step = self._step(tables, partition, ctx)
        return self.count_keys_for(step, key, part=_unique("keys"))

    def count_keys_for(self, step: Step, key: Sequence[str], *, part: str) -> KeyCount:
        """The same as a part of another operation, whose repeat finds the answer of the first time.

        Raises:
            ValueError: the key is not made of column names.
        """
        parts = key_parts(key)
        sql = query(
            "dedup_count",
            table=self._quoted(step.partition),
            key_columns=parts["key_columns"],
            key_names=parts["key_names"],
            keyless=parts["keyless"],
        )
        parameters = [Parameter("date", "DATE", step.partition.date)]
        [row], done = self._engine.select(step, sql, parameters, part=part)
        return KeyCount(
            rows=row["row_count"],
            keyless=row["keyless"],
            duplicates=row["duplicates"],
            bq_jobs=(done,),
        )

    def count_annotated(self, tables: SourceTables, ctx: JobContext) -> int:
        """Rows of the date's joined partition that have an annotation. Reads the ids."""
        joined = tables.joined_partition(ctx.date)
        names = (self._quoted(tables.annotations_partition(ctx.date)), self._quoted(joined))
        [row], _ = self._engine.select(
            self._step(tables, joined, ctx),
            query("join_count", annotations=names[0], joined=names[1]),
            [Parameter("date", "DATE", ctx.date)],
            part=_unique("annotated"),
        )
        annotated: int = row["annotated"]
        return annotated

    def origins(
        self, tables: SourceTables, partition: Partition, ctx: JobContext
    ) -> tuple[Origin, ...]:
        """Which archives and parser versions the partition's rows come from."""
        rows, _ = self._engine.select(
            self._step(tables, partition, ctx),
            query("origins", table=self._quoted(partition)),
            [Parameter("date", "DATE", partition.date)],
            part=_unique("origins"),
        )
        return tuple(
            Origin(
                archive=row["archive"] or "", version=row["version"] or "", rows=row["row_count"]
            )
            for row in rows
        )

    def tmp_partitions(
        self, tables: SourceTables, ctx: JobContext, *, untouched_since: dt.datetime
    ) -> tuple[TmpPartition, ...]:
        """The source's tmp partitions that nobody has written to since a time."""
        partition = tables.tmp_partition(ctx.date)
        step = self._step(tables, partition, ctx)
        if self._tables.get(step, partition.table_id) is None:
            return ()
        rows, _ = self._engine.select(
            step,
            query("old_partitions", project=project_id(self._engine.project), dataset=tables.tmp),
            [
                Parameter("table", "STRING", tables.datatype),
                Parameter("before", "TIMESTAMP", untouched_since),
            ],
            part=_unique("partitions"),
        )
        return tuple(
            TmpPartition(
                partition=tables.tmp_partition(dt.date.fromisoformat(row["partition_id"])),
                last_modified=row["last_modified_time"],
            )
            for row in rows
        )

    def _quoted(self, partition: Partition) -> str:
        return quoted_table(self._engine.project, partition.table_id)

    @staticmethod
    def _step(tables: SourceTables, partition: Partition, ctx: JobContext) -> Step:
        return Step(operation="survey", tables=tables, ctx=ctx, partition=partition)


def _unique(part: str) -> str:
    return f"{part}-{uuid.uuid4().hex[:12]}"
