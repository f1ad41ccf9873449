"""The five table operations of one source on one date, in the order a job goes through them.

Each may be repeated at any time, by the same run or another one. What an operation must know is
read from the tables themselves, so a repeat does the right thing whatever was done before it; a
BigQuery job of the same work that still runs is waited for.
"""

import datetime as dt
import time
from collections.abc import Callable, Sequence
from typing import Any

from google.cloud import bigquery

from gardener_dagster.warehouse.engine import Engine, Parameter, Settings
from gardener_dagster.warehouse.errors import RefusedCopy
from gardener_dagster.warehouse.names import (
    JobContext,
    Partition,
    SourceTables,
    Step,
    quoted_table,
    table_url,
)
from gardener_dagster.warehouse.objects import LoadSource
from gardener_dagster.warehouse.operations.join import Joiner
from gardener_dagster.warehouse.operations.load import Loader, SchemaUpdate
from gardener_dagster.warehouse.operations.survey import Survey
from gardener_dagster.warehouse.operations.tables import Tables
from gardener_dagster.warehouse.operations.takeover import cancel_unfinished
from gardener_dagster.warehouse.queries import key_parts, query
from gardener_dagster.warehouse.results import (
    CopyResult,
    DedupResult,
    DeleteResult,
    JoinResult,
    LoadResult,
    TmpPartition,
)


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class Warehouse:
    """The table operations, through one client.

    Attributes:
        survey: looks at partitions.

    Args:
        client: one a process.
        settings: project, location, priority, limits, retries.
        tmp_expiration: a tmp partition that was not written for so long is deleted.
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

    def cancel_unfinished(self, tables: SourceTables, ctx: JobContext, *, run_id: str) -> None:
        """Cancel what a run that is gone left unfinished, see `takeover`.

        Raises:
            WarehouseError: BigQuery failed.
        """
        cancel_unfinished(self._engine, tables, ctx, run_id=run_id)

    def dedup(self, tables: SourceTables, key: Sequence[str], ctx: JobContext) -> DedupResult:
        """Leaves one row per key in the tmp partition: the newest, ties always broken the same way.

        A query over the key's columns comes first. It compares them with the published ones, too:
        audits decide by that whether the rows are published. Only where it finds duplicates is the
        partition rewritten, in one job, and compared again.

        Args:
            tables: the source's.
            key: columns, or fields of records like `parser.Filename`.
            ctx: whose work it is.

        Raises:
            ValueError: the key is not made of column names.
            WarehouseError: BigQuery failed.
        """
        step = self._step("dedup", tables, ctx, tables.tmp_partition(ctx.date))
        found = keys = self.survey.compare_keys(step, key)
        jobs = found.bq_jobs
        if found.duplicates:
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
            keys = self.survey.compare_keys(step, key)
            jobs += (rewrite, *keys.bq_jobs)
        return DedupResult(
            operation=step.operation,
            table=step.partition.id,
            rows=keys.rows,
            bq_jobs=jobs,
            rows_before=found.rows,
            duplicates_removed=found.rows - keys.rows,
            keys=keys,
        )

    def copy(
        self,
        tables: SourceTables,
        ctx: JobContext,
        *,
        parse_had_no_files: bool,
        may_empty: bool = False,
        already_copied: bool = False,
        rows_loaded: int | None = None,
    ) -> CopyResult:
        """Replace the raw partition by the tmp partition, with a copy job: free, and atomic.

        An empty tmp partition is copied only where raw has nothing to lose, or may lose it. Where
        tmp is empty because its rows are in raw already, raw stays as it is.

        Args:
            tables: the source's.
            ctx: whose work it is.
            parse_had_no_files: the archive bucket has none for the date.
            may_empty: raw may lose all its rows.
            already_copied: a copy of this parse's rows is known to have succeeded, in any run. One
                of the same seed is found without it.
            rows_loaded: rows that the load of this parse put into tmp; None: not known.

        Raises:
            RefusedCopy: tmp has no rows, and nothing says that this is right.
            WarehouseError: BigQuery failed.
        """
        tmp, raw = tables.tmp_partition(ctx.date), tables.raw_partition(ctx.date)
        step = self._step("copy", tables, ctx, raw)
        [rows, before] = self.survey.count_rows(tables, [tmp, raw], ctx)
        if not rows:
            if already_copied or self._engine.succeeded(step):
                return self._copied(step, before)
            reason = "had no files" if parse_had_no_files else "had files, but no rows"
            return self._copy_nothing(
                step, before, reason=reason, may_empty=may_empty, rows_loaded=rows_loaded
            )
        self._tables.ensure(step, raw.table_id, self._tables.schema(step, tmp.table_id))
        config = bigquery.CopyJobConfig(
            write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE,
            create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
            labels=step.labels,
        )
        config.job_timeout_ms = self._engine.job_timeout_ms

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

    @staticmethod
    def _copied(step: Step, rows: int) -> CopyResult:
        return CopyResult(
            operation=step.operation,
            table=step.partition.id,
            rows=rows,
            bq_jobs=(),
            rows_before=None,
        )

    def _copy_nothing(
        self, step: Step, before: int, *, reason: str, may_empty: bool, rows_loaded: int | None
    ) -> CopyResult:
        tmp = step.tables.tmp_partition(step.ctx.date)
        if rows_loaded:
            raise RefusedCopy(
                f"{tmp} has no rows, but {rows_loaded:,} were loaded and not copied",
                operation=step.operation,
                table=step.partition.id,
                advice="the partition expired or was deleted: materialize it again",
            )
        if before and not may_empty:
            raise RefusedCopy(
                f"{tmp} has no rows (the parse {reason}), so the {before:,} rows in raw stay",
                operation=step.operation,
                table=step.partition.id,
                advice="see where the date's archives went, or in the parser's log why it wrote"
                f" nothing; if {tmp} expired or was deleted, materialize it again;"
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
            warning=f"the parse {reason}: the date has no rows",
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
        for each in old:
            step = self._step("expire", tables, ctx, each.partition)
            self._tables.delete_partition(step, each.partition)
        return old

    def table_url(self, partition: Partition) -> str:
        """The page of the partition's table in the Google Cloud console."""
        return table_url(self._engine.project, partition.table_id)

    @staticmethod
    def _step(operation: str, tables: SourceTables, ctx: JobContext, partition: Partition) -> Step:
        return Step(operation=operation, tables=tables, ctx=ctx, partition=partition)
