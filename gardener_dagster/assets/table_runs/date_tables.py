"""Makes the tables of one source on one date: the stages in their order, each only if not yet done.

Several dates of a run are made at once, each in its own thread, so this module does not use the
step's context: it sends events and log lines as messages to the thread that runs the step. The
operations are in ``warehouse``.
"""

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import dagster as dg

from gardener_api.config import Source
from gardener_api.jobs.job import Job, JobKey, JobState
from gardener_api.store.tables.table_versions import PartitionRecord
from gardener_dagster.assets import metadata
from gardener_dagster.assets.keys import joined_key, raw_key, source_tables, tmp_key
from gardener_dagster.assets.table_runs import date_listing
from gardener_dagster.assets.table_runs.annotations import Annotations
from gardener_dagster.assets.table_runs.locking import (
    PartitionLock,
    RunWatch,
    partition_lock,
    utc_now,
)
from gardener_dagster.assets.table_runs.publishing import Publisher, staged_rows
from gardener_dagster.assets.table_runs.work import Made, Message, Note, Operated, TablesWork
from gardener_dagster.planning import audits
from gardener_dagster.planning.due_tables import job_key
from gardener_dagster.warehouse.errors import WrongRowCount
from gardener_dagster.warehouse.names import JobContext
from gardener_dagster.warehouse.results import JoinResult, LoadResult, Result


class CheckFailed(RuntimeError):
    """A check failed that the next operation depends on."""


@dataclass
class DateTables:
    """The tables of one date of a run.

    Attributes:
        work: The work of the run.
        date: The date.
        watch: Tells whether the run must stop.
        tell: Sends a message to the thread that runs the step.
    """

    work: TablesWork
    date: dt.date
    watch: RunWatch
    tell: Callable[[Message], None]
    _lock: PartitionLock = field(init=False)

    def __post_init__(self) -> None:
        self.source, self.store = self.work.source, self.work.store
        self.operations, self.names = self.work.warehouse.tables, source_tables(self.source)
        self._annotations = Annotations(self.work, self.date, self.watch)

    @property
    def key(self) -> JobKey:
        """Key of the date's parse job."""
        return job_key(self.source, self.date)

    def make(self) -> None:
        """Make the selected tables of the date that are not made yet.

        Raises:
            WarehouseError: An operation failed.
            CheckFailed: Keys of raw are not unique, so it must not be joined.
            Held: Audits hold the rows.
            DecisionVoid: The run carries out a decision about rows that no longer exist.
            ArchiveError: A bucket could not be listed.
            StoreError: The job store was unavailable for too long.
            PartitionBusy: Another run held the partition for too long.
            PartitionLost: Another run took over the partition.
            RunStopped: The run must stop.
        """
        if self.work.selected & {tmp_key(self.source), raw_key(self.source)}:
            # All operations from load to delete use the tmp partition: one lock covers them.
            with self._holding(self.source.tmp_table):
                self._make_tmp_and_raw()
        joined = self.source.joined_table
        if joined and joined_key(self.source) in self.work.selected:
            if missing := self._annotations.wait():
                self._warn(f"{self.key}: not joined yet, its annotations are not made: {missing}")
                return
            with self._holding(joined):
                self._make_joined(joined)

    @contextmanager
    def _holding(self, table: str) -> Iterator[None]:
        with partition_lock(
            self.store.partition_locks, table, self.date, self.watch, warn=self._warn
        ) as self._lock:
            if gone := self._lock.taken_from:
                self.operations.cancel_unfinished(self.names, self._context(), run_id=gone)
            yield

    def _warn(self, text: str) -> None:
        self.tell(Note(text=text, warns=True))

    # -- tmp and raw

    @cached_property
    def _job(self) -> Job | None:
        """The newest parse job of the date, read once the run holds the partition's lock."""
        return self.store.latest(self.key)

    @property
    def _parse(self) -> int | None:
        return self._job.number if self._job and self._job.parsed else None

    def _is_made(self, record: PartitionRecord | None) -> bool:
        """Whether a run of this requester wrote the partition from the current parse."""
        return (
            record is not None
            and record.requester == self.work.requester
            and record.job == self._parse
        )

    def _make_tmp_and_raw(self) -> None:
        log, source = self.store.tables, self.source
        if self._publisher.rejected(source.raw_table):
            self._drop_rejected()
        if self._publisher.is_done(source.raw_table):
            return
        tmp = log.partition(source.tmp_table, self.date)
        raw = log.partition(source.raw_table, self.date)
        raw_is_made, accepted = self._is_made(raw), self._is_accepted(tmp, raw)
        if self.work.decision is not None and not accepted:
            raise self._publisher.void(source.raw_table)
        if tmp_key(source) in self.work.selected:
            if raw_is_made or self._is_made(tmp) or accepted:
                self._made_before(tmp_key(source), source.tmp_table, tmp or raw)
            else:
                self._make_tmp()
                tmp = log.partition(source.tmp_table, self.date)
        if raw_key(source) in self.work.selected:
            if raw_is_made:
                self._made_before(raw_key(source), source.raw_table, raw)
                if self._job and self._job.state in (JobState.JOINING, JobState.COMPLETE):
                    return
                self._enter(JobState.DEDUPLICATING, "the rows are in raw already")
                self._delete_tmp()
            else:
                self._make_raw(tmp, raw)
            self._require_unique_keys()
            self._end_raw()

    def _is_accepted(self, tmp: PartitionRecord | None, raw: PartitionRecord | None) -> bool:
        """Whether a person accepted the rows in tmp, so that they are not loaded again."""
        if (
            tmp is None
            or tmp.job != self._parse
            or not self._publisher.accepted(self.source.raw_table, staged_rows(tmp))
        ):
            return False
        partition = self.names.tmp_partition(self.date)
        [rows] = self.operations.survey.count_rows(self.names, [partition], self._context())
        return bool(rows) or self._is_copied(tmp, raw)

    def _drop_rejected(self) -> None:
        """Delete rejected rows from tmp; even the requester that made them must load again."""
        rejected, table = self._publisher.rejected(self.source.raw_table), self.source.tmp_table
        tmp = self.store.tables.partition(table, self.date)
        if rejected and tmp and rejected.staged == staged_rows(tmp):
            self._record(self.operations.delete(self.names, self._context()))
            self.store.tables.record_partition(
                table, self.date, rows=0, job=tmp.job, run_id=self.work.run_id, now=utc_now()
            )
        self._publisher.settle_rejected(self.source.raw_table)

    def _make_tmp(self) -> None:
        self._enter(JobState.LOADING)
        chosen = self._listing.objects_of_parse(self._job)
        result = self.operations.load(self.names, chosen, self._context())
        self._record(result)
        self._record_partition(self.source.tmp_table, result.rows)
        self.tell(
            Made(
                key=tmp_key(self.source),
                date=self.date,
                metadata=self._metadata(
                    self.source.tmp_table, result, about=metadata.about_load(result, chosen)
                ),
            )
        )

    def _make_raw(self, tmp: PartitionRecord | None, raw: PartitionRecord | None) -> None:
        self._enter(JobState.DEDUPLICATING)
        dedup = self.operations.dedup(self.names, self.source.dedup_key, self._context())
        self._record(dedup)
        self._enter(JobState.COPYING)
        audit = self._publisher.audit_raw(self._listing, tmp, dedup.keys, job=self._parse)
        loaded = tmp is not None and self._parse is not None and tmp.job == self._parse
        copy = self.operations.copy(
            self.names,
            self._context(),
            parse_had_no_files=date_listing.found_no_files(self._job),
            may_empty=self.work.may_empty,
            already_copied=self._is_copied(tmp, raw),
            rows_loaded=tmp.rows if tmp and loaded else None,
        )
        self._record(copy)
        audit = audit or self._publisher.audit_copied(self._listing, copy, raw)
        self._publisher.check_raw(audit.verdicts)
        version = self._record_partition(self.source.raw_table, copy.rows)
        self._publisher.raw_published(
            audit, tmp, version=version, duplicates=dedup.duplicates_removed
        )
        delete = self._delete_tmp()
        self.tell(
            Made(
                key=raw_key(self.source),
                date=self.date,
                metadata=self._metadata(
                    self.source.raw_table,
                    dedup,
                    copy,
                    delete,
                    about=metadata.about_copy(dedup, copy, audit.keys) | {"version": version},
                ),
            )
        )

    def _is_copied(self, tmp: PartitionRecord | None, raw: PartitionRecord | None) -> bool:
        """Whether raw has the rows of the current parse, and tmp was not loaded again since."""
        return (
            raw is not None
            and self._parse is not None
            and raw.job == self._parse
            and (tmp is None or tmp.made <= raw.made)
        )

    def _delete_tmp(self) -> Result:
        self._enter(JobState.DELETING)
        delete = self.operations.delete(self.names, self._context())
        self._record(delete)
        return delete

    def _end_raw(self) -> None:
        joined = joined_key(self.source)
        if joined is None:
            self._enter(JobState.COMPLETE)
        elif joined not in self.work.selected or self._annotations.awaited():
            self._enter(JobState.JOINING, "waiting for annotations")

    # -- joined

    def _make_joined(self, table: str) -> None:
        if self._publisher.rejected(table):
            self._publisher.settle_rejected(table)
        if self._publisher.is_done(table):
            return
        log, run_id, key = self.store.tables, self.work.run_id, joined_key(self.source)
        annotations = self.work.annotations
        if key is None or annotations is None:
            raise ValueError(f"{self.source.name}: target_datasets.join is not set")
        inputs = log.join_inputs(self.source.raw_table, annotations.raw_table, self.date)
        record = log.partition(table, self.date)
        if record and record.requester == self.work.requester and record.inputs == inputs:
            self._made_before(key, table, record)
            job = self.store.latest(self.key)
            if job and job.state is not JobState.COMPLETE:
                self._enter(JobState.JOINING)
                self._enter(JobState.COMPLETE)
            return
        log.begin_join(table, self.date, inputs, run_id=run_id, now=utc_now())
        self._enter(JobState.JOINING, f"run {run_id}")
        self._require_unique_keys()
        audit = self._publisher.audit_join(table, inputs)
        raw = log.partition(self.source.raw_table, self.date)
        result = self._join(table, annotations)
        self._record(result)
        of_raw = audits.rows_of_raw(
            result.rows, raw.rows if raw and raw.version == inputs.raw else result.rows
        )
        self._publisher.check_joined(table, {**audit.verdicts, "rows_of_raw": of_raw})
        version = log.record_join(
            table,
            self.date,
            inputs,
            rows=result.rows,
            run_id=run_id,
            requester=self.work.requester,
            now=utc_now(),
        )
        self._publisher.join_published(
            table, inputs, version=version, rows=result.rows, annotated=audit.annotated
        )
        self._enter(JobState.COMPLETE)
        versions = {
            "version of raw": inputs.raw,
            "versions of annotations": f"{inputs.annotations}, {inputs.annotations_before}",
        }
        about = metadata.about_join(result, audit.annotated) | versions
        shown = self._metadata(table, result, about=about)
        self.tell(Made(key=key, date=self.date, metadata=shown))

    def _join(self, table: str, annotations: Source) -> JoinResult:
        try:
            return self.operations.join(
                self.names,
                self._context(),
                annotations_known_empty=date_listing.is_known_empty(
                    self.store, annotations, self.date
                ),
                may_empty=self.work.may_empty,
            )
        except WrongRowCount as error:
            self._publisher.check_joined(table, {"rows_of_raw": audits.wrong_row_count(str(error))})
            raise

    def _require_unique_keys(self) -> None:
        """Refuse a raw partition whose keys are not unique: a join would multiply rows.

        Raises:
            CheckFailed: The keys are not unique.
        """
        unique_keys = (self.source.raw_table, "unique_keys")
        for result in (check.result for check in self.store.checks.of(self.key)):
            if (result.table, result.name) == unique_keys and not result.passed:
                raw = self.names.raw_partition(self.date)
                raise CheckFailed(f"check unique_keys of {raw}: {result.description}")

    @cached_property
    def _publisher(self) -> Publisher:
        return Publisher(
            work=self.work, date=self.date, key=self.key, context=self._context, tell=self.tell
        )

    @cached_property
    def _listing(self) -> date_listing.DateListing:
        """The date's archives and parsed objects, for the load and the checks after it."""
        return date_listing.DateListing.of(self.work.gcs, self.key, self.source.filter)

    # -- records

    def _context(self) -> JobContext:
        return JobContext(
            run_id=self.work.run_id,
            date=self.date,
            seed=f"{self.work.requester}-{self._parse or 0}",
            guard=self._lock.guard,
        )

    def _enter(self, state: JobState, detail: str = "") -> None:
        """Check that the run still holds the partition, then set the stage of the job."""
        self._lock.check(ask_dagster=state in (JobState.COPYING, JobState.JOINING))  # publishes
        self.store.stage(self.key, state, run_id=self.work.run_id, detail=detail, now=utc_now())

    def _record(self, result: Result) -> None:
        """Record the work and cost of an operation, for the metrics and the job's page."""
        self.tell(Operated(date=self.date, text=f"{result.operation} {result.rows:,} rows"))
        self.store.tables.record_operation(
            key=self.key,
            table=result.table,
            operation=result.operation,
            run_id=self.work.run_id,
            bq_job_ids=result.bq_job_ids,
            rows=result.rows,
            bytes=result.bytes_processed,
            slot_seconds=result.slot_seconds,
            bytes_billed=result.bytes_billed,
            seconds=result.waiting_seconds + result.running_seconds,
            objects=result.objects if isinstance(result, LoadResult) else None,
            now=utc_now(),
        )

    def _record_partition(self, table: str, rows: int) -> int:
        return self.store.tables.record_partition(
            table,
            self.date,
            rows=rows,
            run_id=self.work.run_id,
            requester=self.work.requester,
            job=self._parse,
            now=utc_now(),
        )

    def _made_before(self, key: dg.AssetKey, table: str, record: PartitionRecord | None) -> None:
        if record is None:
            raise ValueError(f"{table} of {self.date} was never recorded as made")
        self.tell(
            Made(
                key=key,
                date=self.date,
                before=True,
                metadata=metadata.about_earlier(self.work.warehouse.table_url(table), record),
            )
        )

    def _metadata(self, table: str, *results: Result, about: Mapping[str, Any]) -> dict[str, Any]:
        return metadata.table_metadata(self.work.warehouse.table_url(table), *results, about=about)
