"""The five table operations of one source on one date, in the order a job goes through them.

Each operation is idempotent and may be repeated at any time, by the same run or another one. It
reads the state that it depends on from the tables. If a BigQuery job of the same work is still
running, the repeat waits for it.
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
        survey: read-only queries over partitions.

    Args:
        client: the BigQuery client; one per process.
        settings: project, location, priority, limits, retries.
        tmp_expiration: time since the last write after which a tmp partition is deleted.
        schema_update: "error": a field that the tables lack is an error; "add": it is added to the
            tables.
        now: returns the current time, aware.
        sleep: sleeps for the given seconds.
        clock: monotonic clock, in seconds.
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
        """Create the source's tmp and raw tables, and their datasets, if they are missing."""
        self._loader.ensure_tables(
            self._step("ensure", tables, ctx, tables.tmp_partition(ctx.date))
        )

    def load(self, tables: SourceTables, source: LoadSource, ctx: JobContext) -> LoadResult:
        """Replace the tmp partition with the rows of the parse's objects; without any, delete it.

        Raises:
            NewField: a row has a field that the tables lack, and it was not added.
            WrongDate: rows are of another date.
            TooManyObjects: the objects need more URIs than one load job accepts.
            WarehouseError: BigQuery failed.
        """
        return self._loader.load(
            self._step("load", tables, ctx, tables.tmp_partition(ctx.date)), source
        )

    def cancel_unfinished(self, tables: SourceTables, ctx: JobContext, *, run_id: str) -> None:
        """Cancel the unfinished BigQuery jobs of a dead run, see `takeover`.

        Raises:
            WarehouseError: BigQuery failed.
        """
        cancel_unfinished(self._engine, tables, ctx, run_id=run_id)

    def dedup(self, tables: SourceTables, key: Sequence[str], ctx: JobContext) -> DedupResult:
        """Keep only the newest row per key in the tmp partition; break ties deterministically.

        A query first counts duplicates and compares the keys with the published ones, for the
        audits that decide whether the rows are published. If there are duplicates, one job
        rewrites the partition, and the query runs again.

        Args:
            tables: tables of the source.
            key: columns, or fields of records like `parser.Filename`.
            ctx: context of the work.

        Raises:
            ValueError: a part of the key is not a column name.
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
        """Replace the raw partition with the tmp partition by a copy job, which is free and atomic.

        If tmp is empty, raw is emptied only if `may_empty` is set. If tmp is empty because its rows
        were already copied, raw is not changed.

        Args:
            tables: tables of the source.
            ctx: context of the work.
            parse_had_no_files: the archive bucket has no archives of the date.
            may_empty: raw may lose all its rows.
            already_copied: a copy of this parse's rows has succeeded in some run. A copy with the
                same seed is found without this argument.
            rows_loaded: rows that the load of this parse wrote to tmp; None: not known.

        Raises:
            RefusedCopy: tmp has no rows, but rows were loaded, or raw must not be emptied.
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
        """Delete the tmp partition; a missing one is no error."""
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
        """Replace the joined partition with the raw rows, each with its annotation if it has one.

        Args:
            tables: tables of the source, which must have a `joined` dataset.
            ctx: context of the work.
            annotations_known_empty: the parse of the date's annotations had no files, so missing
                annotations are no error.
            may_empty: the joined partition may lose all its rows if raw has none.

        Raises:
            AnnotationsMissing: the annotations of the date have not been made.
            RefusedJoin: raw has no rows, and the joined partition must not be emptied.
            WrongRowCount: the joined partition has more or fewer rows than raw, because raw was
                replaced during the join.
            WarehouseError: BigQuery failed.
        """
        step = self._step("join", tables, ctx, tables.joined_partition(ctx.date))
        return self._joiner.join(
            step, annotations_known_empty=annotations_known_empty, may_empty=may_empty
        )

    def expire_tmp(self, tables: SourceTables, ctx: JobContext) -> tuple[TmpPartition, ...]:
        """Delete tmp partitions of failed runs, which were not written for `tmp_expiration`.

        BigQuery's own partition expiration does not work here: it counts from the partition's date,
        not from its last change, so the tmp partition of an old date would expire immediately.
        https://cloud.google.com/bigquery/docs/managing-partitioned-tables#partition-expiration

        Returns:
            The deleted partitions.
        """
        old = self.survey.tmp_partitions(
            tables, ctx, untouched_since=self._now() - self._tmp_expiration
        )
        for each in old:
            step = self._step("expire", tables, ctx, each.partition)
            self._tables.delete_partition(step, each.partition)
        return old

    def table_url(self, partition: Partition) -> str:
        """Return the URL of the page of the partition's table in the Google Cloud console."""
        return table_url(self._engine.project, partition.table_id)

    @staticmethod
    def _step(operation: str, tables: SourceTables, ctx: JobContext, partition: Partition) -> Step:
        return Step(operation=operation, tables=tables, ctx=ctx, partition=partition)
