"""Look at partitions: how many rows, how unique, where from, how old. Changes nothing."""

import datetime as dt
from collections.abc import Sequence

from gardener_dagster.warehouse.engine import Engine, Parameter
from gardener_dagster.warehouse.names import (
    JobContext,
    Partition,
    SourceTables,
    Step,
    project_id,
    quoted_table,
)
from gardener_dagster.warehouse.operations.tables import Tables
from gardener_dagster.warehouse.queries import key_parts, query
from gardener_dagster.warehouse.results import (
    AnnotationCount,
    KeyComparison,
    KeyCount,
    Origin,
    TmpPartition,
)


class Survey:
    """Read-only queries over the tables of a source."""

    def __init__(self, engine: Engine, tables: Tables) -> None:
        self._engine, self._tables = engine, tables

    def count_rows(
        self, tables: SourceTables, partitions: Sequence[Partition], ctx: JobContext
    ) -> list[int]:
        """Count the rows of each partition; 0 if it is missing. Reads the date column at most."""
        step = self._step(tables, partitions[0], ctx)
        names = {partition.table_id for partition in partitions}
        known = {name for name in sorted(names) if self._tables.get(step, name) is not None}
        present = [(i, p) for i, p in enumerate(partitions) if p.table_id in known]
        counts = [0] * len(partitions)
        if present:
            parts = (query("count", index=str(i), table=self._quoted(p)) for i, p in present)
            parameters = [Parameter(f"date_{i}", "DATE", p.date) for i, p in present]
            rows, _ = self._engine.select(
                step, "\nUNION ALL\n".join(parts), parameters, part="rows"
            )
            for row in rows:
                counts[row["part"]] = row["row_count"]
        return counts

    def count_keys(
        self, tables: SourceTables, partition: Partition, key: Sequence[str], ctx: JobContext
    ) -> KeyCount:
        """Count the rows, missing keys and duplicates of a partition. Reads the key's columns.

        Raises:
            ValueError: a part of the key is not a column name.
        """
        step, parts = self._step(tables, partition, ctx), key_parts(key)
        sql = query(
            "key_count",
            table=self._quoted(partition),
            key_columns=parts["key_columns"],
            key_names=parts["key_names"],
            keyless=parts["keyless"],
        )
        parameters = [Parameter("date", "DATE", partition.date)]
        [row], done = self._engine.select(step, sql, parameters, part="count")
        return KeyCount(
            rows=row["row_count"],
            keyless=row["keyless"],
            duplicates=row["duplicates"],
            bq_jobs=(done,),
        )

    def compare_keys(self, step: Step, key: Sequence[str]) -> KeyComparison:
        """Compare the tmp partition with the published raw one. Reads the key's columns.

        Args:
            step: the step that the query belongs to.
            key: columns, or fields of records.

        Raises:
            ValueError: a part of the key is not a column name.
        """
        tables, date = step.tables, step.ctx.date
        tmp, raw = tables.tmp_partition(date), tables.raw_partition(date)
        parts = key_parts(key)
        columns = {name: parts[name] for name in ("key_columns", "keyless")}
        sides = [(tmp, "1", "0")]
        if self._tables.get(step, raw.table_id) is not None:
            sides.append((raw, "0", "1"))
        keys = "\nUNION ALL\n".join(
            query("keys", table=self._quoted(side), staged=staged, published=published, **columns)
            for side, staged, published in sides
        )
        names = {name: parts[name] for name in ("key_names", "id_name")}
        [row], done = self._engine.select(
            step,
            query("compare_keys", keys=keys, **names),
            [Parameter("date", "DATE", date)],
            part="compare",
        )
        return KeyComparison(rows=row.pop("row_count"), **row, bq_jobs=(done,))

    def count_annotated(self, tables: SourceTables, ctx: JobContext) -> AnnotationCount:
        """Count the rows that a join would annotate. Reads the ids of raw and annotations."""
        raw, joined = tables.raw_partition(ctx.date), tables.joined_partition(ctx.date)
        annotations = tables.annotations_partition(ctx.date)
        step = self._step(tables, raw, ctx)
        [rows, published, *_] = self.count_rows(tables, [raw, joined], ctx)
        if not rows or self._tables.get(step, annotations.table_id) is None:
            return AnnotationCount(rows=rows, annotated=0, published=published)
        [row], done = self._engine.select(
            step,
            query("annotated_count", raw=self._quoted(raw), annotations=self._quoted(annotations)),
            [Parameter("date", "DATE", ctx.date)],
            part="annotated",
        )
        return AnnotationCount(
            rows=row["row_count"], annotated=row["annotated"], published=published, bq_jobs=(done,)
        )

    def origins(
        self, tables: SourceTables, partition: Partition, ctx: JobContext
    ) -> tuple[Origin, ...]:
        """Count the partition's rows by archive and parser version."""
        rows, _ = self._engine.select(
            self._step(tables, partition, ctx),
            query("origins", table=self._quoted(partition)),
            [Parameter("date", "DATE", partition.date)],
            part="origins",
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
        """Return the source's tmp partitions that were last modified before a time."""
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
            part="partitions",
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
