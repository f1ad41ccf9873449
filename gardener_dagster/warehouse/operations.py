"""The five table operations of one source on one date, in the order a job goes through them.

Each may be repeated at any time with the same context: what is done already is found and not done
again.
"""

import datetime as dt
import time
from collections.abc import Callable, Sequence
from typing import Any

from google.cloud import bigquery

from gardener_dagster.warehouse.engine import Engine, Parameter, Settings, Step
from gardener_dagster.warehouse.errors import RefusedCopy
from gardener_dagster.warehouse.join import Joiner
from gardener_dagster.warehouse.load import Loader, SchemaUpdate
from gardener_dagster.warehouse.names import (
    JobContext,
    Partition,
    SourceTables,
    quoted_table,
    table_url,
)
from gardener_dagster.warehouse.objects import LoadSource
from gardener_dagster.warehouse.results import (
    BqJob,
    CopyResult,
    DedupResult,
    DeleteResult,
    JoinResult,
    LoadResult,
    TmpPartition,
)
from gardener_dagster.warehouse.sql import key_parts, query
from gardener_dagster.warehouse.survey import Survey
from gardener_dagster.warehouse.tables import Tables


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class Warehouse:
    """The table operations, through one client.

    Attributes:
        survey: looks at partitions.

    Args:
        client: one a process.
        settings: project, location, priority, limits, retries.
        tmp_expiration: a tmp partition that nobody touched for so long is a leftover.
        schema_update: what a field in the data that the tables lack is: an error, or added to the
            tables.
        now: the time, aware.
        sleep: waits so many seconds.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        client: bigquery.Client,
        settings: Settings | None = None,
        *,
        tmp_expiration: dt.timedelta = dt.timedelta(days=7),
        schema_update: SchemaUpdate = "error",
        now: Callable[[], dt.datetime] = _utc_now,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = Engine(client, settings or Settings(), sleep=sleep, clock=clock)
        self._tables = Tables(self._engine)
        self.survey = Survey(self._engine, self._tables)
        self._loader = Loader(self._engine, self._tables, schema_update=schema_update, now=now)
        self._joiner = Joiner(self._engine, self._tables, self.survey)
        self._tmp_expiration, self._now = tmp_expiration, now

    def ensure_tables(self, tables: SourceTables, ctx: JobContext) -> None:
        """Makes the source's tmp and raw tables, and their datasets, where they are missing."""
        self._loader.ensure_tables(
            self._step("ensure", tables, ctx, tables.tmp_partition(ctx.date))
        )

    def load(self, tables: SourceTables, source: LoadSource, ctx: JobContext) -> LoadResult:
        """Replaces the tmp partition by the rows of the parse's objects; without any it is empty.

        Raises:
            NewField: a row has a field that the tables lack, and it is not to be added.
            WrongDate: rows are of another date.
            TooManyObjects: BigQuery cannot be told what to load.
            WarehouseError: BigQuery failed.
        """
        return self._loader.load(
            self._step("load", tables, ctx, tables.tmp_partition(ctx.date)), source
        )

    def dedup(self, tables: SourceTables, key: Sequence[str], ctx: JobContext) -> DedupResult:
        """Leaves one row per key in the tmp partition: the newest, ties always broken the same way.

        A query over the key's columns comes first; only where it finds duplicates is the partition
        rewritten, in one job.

        Args:
            tables: the source's.
            key: columns, or fields of records like `parser.Filename`.
            ctx: whose work it is.

        Raises:
            ValueError: the key is not made of column names.
            WarehouseError: BigQuery failed.
        """
        step = self._step("dedup", tables, ctx, tables.tmp_partition(ctx.date))
        keys = self.survey.count_keys_for(step, key, part="count")
        rewrites: tuple[BqJob, ...] = ()
        if keys.duplicates:
            parts = key_parts(key)
            sql = query(
                "dedup",
                table=quoted_table(self._engine.project, step.partition.table_id),
                key=parts["key"],
                keyless=parts["keyless"],
            )
            parameters = [Parameter("date", "DATE", ctx.date)]
            _, rewrite = self._engine.query(
                step, sql, parameters, part="rewrite", destination=step.partition
            )
            rewrites = (rewrite,)
        return DedupResult(
            operation=step.operation,
            table=step.partition.id,
            rows=keys.rows - keys.duplicates,
            bq_jobs=keys.bq_jobs + rewrites,
            rows_before=keys.rows,
            duplicates_removed=keys.duplicates,
            null_keys=keys.keyless,
            rewritten=bool(rewrites),
        )

    def copy(
        self,
        tables: SourceTables,
        ctx: JobContext,
        *,
        parse_had_no_files: bool,
        may_empty: bool = False,
    ) -> CopyResult:
        """Replaces the raw partition by the tmp partition, with a copy job: free, and atomic.

        Args:
            tables: the source's.
            ctx: whose work it is.
            parse_had_no_files: the archive bucket has none for the date, so an empty tmp is right.
            may_empty: raw may lose all its rows where the parse had no files.

        Raises:
            RefusedCopy: tmp has no rows, and nothing says that this is right.
            WarehouseError: BigQuery failed.
        """
        tmp, raw = tables.tmp_partition(ctx.date), tables.raw_partition(ctx.date)
        step = self._step("copy", tables, ctx, raw)
        before: int | None = None
        if not self._engine.find(step):  # else an earlier try passed here, and tmp may be gone
            [rows, before] = self.survey.count_rows(tables, [tmp, raw], ctx)
            if not rows:
                return self._copy_nothing(
                    step, before, parse_had_no_files=parse_had_no_files, may_empty=may_empty
                )
            self._tables.ensure(step, raw.table_id, self._tables.schema(step, tmp.table_id))
        config = bigquery.CopyJobConfig(
            write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE,
            create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
            labels=step.labels,
        )

        def begin(job_id: str, options: dict[str, Any]) -> bigquery.CopyJob:
            return self._engine.client.copy_table(
                self._engine.reference(tmp.id),
                self._engine.reference(raw.id),
                job_id=job_id,
                job_config=config,
                location=self._engine.location,
                **options,
            )

        _, done = self._engine.run(step, begin)
        [rows] = self.survey.count_rows(tables, [raw], ctx)
        return CopyResult(
            operation="copy", table=raw.id, rows=rows, bq_jobs=(done,), rows_before=before
        )

    def _copy_nothing(
        self, step: Step, before: int, *, parse_had_no_files: bool, may_empty: bool
    ) -> CopyResult:
        tmp = step.tables.tmp_partition(step.ctx.date)
        if not parse_had_no_files:
            raise RefusedCopy(
                f"{tmp} has no rows though the parse had files, so the {before:,} rows in raw stay",
                operation=step.operation,
                table=step.partition.id,
                advice="see in the parser's log why it wrote nothing, parse the date again;"
                " or if tmp expired or was deleted, materialize it again",
            )
        if before and not may_empty:
            raise RefusedCopy(
                f"the parse had no files, but raw has {before:,} rows, which stay",
                operation=step.operation,
                table=step.partition.id,
                advice="see where the date's archives went;"
                " to empty the partition nonetheless, run it with the tag gardener/may_empty: true",
            )
        if before:
            self._tables.delete_partition(step, step.partition)
        return CopyResult(
            operation=step.operation,
            table=step.partition.id,
            rows=0,
            bq_jobs=(),
            rows_before=before,
        )

    def delete(self, tables: SourceTables, ctx: JobContext) -> DeleteResult:
        """Deletes the tmp partition; gone already is fine."""
        step = self._step("delete", tables, ctx, tables.tmp_partition(ctx.date))
        existed = self._tables.delete_partition(step, step.partition)
        return DeleteResult(
            operation=step.operation, table=step.partition.id, rows=0, bq_jobs=(), existed=existed
        )

    def join(
        self,
        tables: SourceTables,
        ctx: JobContext,
        *,
        annotations_known_empty: bool,
        may_empty: bool = False,
    ) -> JoinResult:
        """Replaces the joined partition by the raw one's rows, each with its annotation.

        Args:
            tables: the source's; it must have a `joined` dataset.
            ctx: whose work it is.
            annotations_known_empty: the parse of the date's annotations had no files, so that there
                are none is right.
            may_empty: the joined partition may lose all its rows where raw has none.

        Raises:
            AnnotationsMissing: the annotations of the date were never made.
            RefusedJoin: raw has no rows (any more) but the joined partition does.
            WrongRowCount: the joined partition has not the rows of raw, because raw was replaced
                meanwhile.
            WarehouseError: BigQuery failed.
        """
        step = self._step("join", tables, ctx, tables.joined_partition(ctx.date))
        return self._joiner.join(
            step, annotations_known_empty=annotations_known_empty, may_empty=may_empty
        )

    def expire_tmp(self, tables: SourceTables, ctx: JobContext) -> tuple[TmpPartition, ...]:
        """Deletes tmp partitions unwritten to for `tmp_expiration`: what failed runs left behind.

        BigQuery's own partition expiration would not do: it counts from the partition's date, not
        from its last change, so the tmp partition of an old date would be gone once it is loaded.
        https://cloud.google.com/bigquery/docs/managing-partitioned-tables#partition-expiration

        Returns:
            What was deleted.
        """
        old = self.survey.tmp_partitions(
            tables, ctx, untouched_since=self._now() - self._tmp_expiration
        )
        for leftover in old:
            step = self._step("expire", tables, ctx, leftover.partition)
            self._tables.delete_partition(step, leftover.partition)
        return old

    def table_url(self, partition: Partition) -> str:
        """The page of the partition's table in the Google Cloud console."""
        return table_url(self._engine.project, partition.table_id)

    @staticmethod
    def _step(operation: str, tables: SourceTables, ctx: JobContext, partition: Partition) -> Step:
        return Step(operation=operation, tables=tables, ctx=ctx, partition=partition)
