"""The ``parse`` step: it asks parsers for jobs and waits for them. No tables.

One step serves all sources and any range of dates, so that a whole backfill needs only one waiting
process. Its requests are in the job store. A step that dies or is interrupted withdraws nothing:
its jobs stay queued, and the retry of its run waits for them. Jobs are withdrawn only if a person
cancels the run.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg
from dagster import DagsterExecutionInterruptedError
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from gardener_api.archive import ArchiveError, ArchiveListing, list_archives
from gardener_api.config import GardenerConfig, Source
from gardener_api.formatting import count_jobs, human_duration, one_line
from gardener_api.jobs.job import Job, JobKey, JobRequest, JobState, Outcome
from gardener_api.jobs.table_stages import ChainRule
from gardener_api.store.schema import StoreError
from gardener_api.store.store import JobStore
from gardener_dagster.assets.catalog import Catalog
from gardener_dagster.assets.failures import ADVICE, raise_failures
from gardener_dagster.assets.keys import (
    BACKFILL_TAG,
    PRIORITY_TAG,
    parsed_key,
    priority_of,
    tmp_key,
)
from gardener_dagster.assets.partitions import date_of
from gardener_dagster.assets.requesters import (
    CANCELLED,
    cancelled_by,
    find_requester,
    refuse_cancelled,
)
from gardener_dagster.planning.due_tables import job_key
from gardener_dagster.resources import GCSResource, store_needed

if TYPE_CHECKING:
    from google.cloud import storage

POLL_SECONDS = 1.0
SILENCE = timedelta(minutes=30)
"""If no job ends for this long, a warning in the run's log says where to look."""
CANCEL_POLL_SECONDS = 10.0
"""Seconds between two checks that the run is in progress and its jobs are not taken over."""
LISTINGS_AT_ONCE = 8
CHAIN_TIMEOUT = timedelta(minutes=30)
"""Maximum time between the parse of a date and its report to its whole-chain backfill.

A date is reported once its tables, which the sensor ``parsed_jobs`` starts, have ended. After an
earlier report, Dagster's backfill daemon would start a second run for these tables.
"""
CHAIN_POLL_SECONDS = 5.0
"""Seconds between two polls of the jobs of a whole-chain backfill. Each poll reads all unreported
jobs, and the reports are not urgent."""
SETTLE = timedelta(seconds=15)
"""Maximum delay from the end of a date's tables in the job store to their record in Dagster."""

Event = dg.AssetMaterialization | dg.MaterializeResult[object]


def build_parse(
    config: GardenerConfig, partitions: dg.PartitionsDefinition[str], catalog: Catalog
) -> dg.AssetsDefinition:
    """Build the op that makes every ``parsed`` asset."""
    sources = {parsed_key(source): source for source in config.sources}

    @dg.multi_asset(
        name="parse",
        specs=[_spec(source, partitions, catalog) for source in config.sources],
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def parse(
        context: dg.AssetExecutionContext,
        job_store: dg.ResourceParam[JobStore],
        gcs: GCSResource,
    ) -> Iterator[Event]:
        """Asks for the jobs of the selected sources and dates; reports each as it ends."""
        selected = [s for k, s in sources.items() if k in context.selected_asset_keys]
        with store_needed():
            refuse_cancelled(context.instance, context.run, job_store)
        request = _Request.of(context, config)
        client = gcs.client
        waiting = Waiting(context, job_store, request)
        with store_needed(), waiting.withdrawing_if_cancelled():
            # In date order: parsers work on early dates while later ones are still being listed.
            dates = map(date_of, context.partition_keys)
            days = [(source, job_key(source, date)) for date in dates for source in selected]
            with ThreadPoolExecutor(LISTINGS_AT_ONCE, thread_name_prefix="list") as pool:
                for batch in _batches(days, size=4 * LISTINGS_AT_ONCE):
                    listings = pool.map(lambda day: _list(client, *day), batch)
                    waiting.enqueue(zip(batch, listings, strict=True))
                    yield from waiting.report()
            while waiting.jobs:
                time.sleep(CHAIN_POLL_SECONDS if request.chain else POLL_SECONDS)
                yield from waiting.report()
                waiting.tell_silence()
                waiting.check_run()
        raise_failures(
            sorted(waiting.failures),
            count=count_jobs(len(waiting.failures)),
            kept="it asks for no others again",
        )

    return parse


def _spec(
    source: Source, partitions: dg.PartitionsDefinition[str], catalog: Catalog
) -> dg.AssetSpec:
    return dg.AssetSpec(
        key=parsed_key(source),
        partitions_def=partitions,
        group_name=source.experiment,
        kinds={"gcs", "parsed"},
        owners=source.owners,
        metadata=catalog.parsed(source),
        skippable=True,
        description=(
            f"One JSON object per archive of `gs://{source.bucket}/{source.experiment}/"
            f"{source.datatype}/`, written by a parser that was handed the date by the jobs API."
        ),
    )


@dataclass(frozen=True, kw_only=True)
class _Request:
    requester: str
    run_id: str
    backfill_id: str | None
    tables_too: frozenset[dg.AssetKey]
    chain: bool
    tags: dict[str, str]
    ranks: dict[str, int]
    single: bool

    @classmethod
    def of(cls, context: dg.AssetExecutionContext, config: GardenerConfig) -> "_Request":
        tags = dict(context.run.tags)
        backfill_id = tags.get(BACKFILL_TAG)
        backfill = context.instance.get_backfill(backfill_id) if backfill_id else None
        tables_too = frozenset((backfill.asset_selection if backfill else None) or ())
        tables = {tmp_key(source) for source in config.sources}
        selected = context.run.asset_selection  # None: all assets
        return cls(
            requester=find_requester(context.run, context.instance.get_run_by_id),
            run_id=context.run.run_id,
            backfill_id=backfill_id,
            tables_too=tables_too,
            # False if this run itself makes the tables, after this step.
            chain=not tables.isdisjoint(tables_too)
            and selected is not None
            and tables.isdisjoint(selected),
            tags=tags,
            ranks={source.name: rank for rank, source in enumerate(config.sources)},
            single=len(context.partition_keys) == 1,
        )

    def job_request(self, source: Source, key: JobKey, listing: ArchiveListing) -> JobRequest:
        return JobRequest(
            key=key,
            requester=self.requester,
            run_id=self.run_id,
            backfill_id=self.backfill_id,
            covers_tables=tmp_key(source) in self.tables_too,
            priority=priority_of(self.tags),
            daily=self.tags.get(PRIORITY_TAG) == "daily",
            filter=source.filter,
            tmp=source.target_datasets.tmp,
            raw=source.target_datasets.raw,
            join=source.target_datasets.join or "",
            rank=self.ranks[source.name],
            archives=listing.count,
            archive_bytes=listing.bytes,
        )


class Waiting:
    """The jobs that a run has requested and not yet reported."""

    def __init__(
        self, context: dg.AssetExecutionContext, store: JobStore, request: _Request
    ) -> None:
        self._context, self._store, self._request = context, store, request
        self.failures: list[str] = []
        self._last_done = datetime.now(UTC)
        self._told = self._last_done
        self._looked = time.monotonic()
        self.jobs: dict[int, str] = {}  # job ID by job number

    def enqueue(
        self, listed: Iterable[tuple[tuple[Source, JobKey], ArchiveListing | ArchiveError]]
    ) -> None:
        """Enqueue the jobs of dates whose archives were listed; record the others as failed."""
        wanted: list[JobRequest] = []
        for (source, key), listing in listed:
            if isinstance(listing, ArchiveError):
                self._fail(f"{key}: {listing}")
            else:
                wanted.append(self._request.job_request(source, key, listing))
        jobs = self._store.enqueue(wanted, now=datetime.now(UTC))
        for job in jobs:
            self.jobs[job.number] = job.id
            self._context.log.info(f"{job.id}: {job.state}, {job.archives} archives")

    def report(self) -> Iterator[Event]:
        """Yield a materialization for each newly parsed job; record the failed ones."""
        try:
            yield from self._report()
        except OperationalError as error:
            if not error.connection_invalidated:
                raise
            # The database restarted during the report. The next one waits until it is back.
            self._context.log.warning(f"the job store cut the connection: {one_line(error)}")

    def _report(self) -> Iterator[Event]:
        request = self._request
        now = datetime.now(UTC)
        rule = ChainRule(ended_before=now - SETTLE, parsed_before=now - CHAIN_TIMEOUT)
        unreported = self._store.unreported(
            request.requester, run_id=request.run_id, chain=rule if request.chain else None
        )
        done = [outcome for outcome in unreported if outcome.job.number in self.jobs]
        for outcome in done:
            if failure := _failure(outcome):
                self._fail(failure)
            else:
                yield self._event(outcome.job)
        if done:
            numbers = [outcome.job.number for outcome in done]
            self._store.mark_reported(numbers, run_id=request.run_id, now=datetime.now(UTC))
            self._last_done = datetime.now(UTC)
            for number in numbers:
                del self.jobs[number]

    def _fail(self, failure: str) -> None:
        self.failures.append(failure)
        self._context.log.error(failure)

    def _event(self, job: Job) -> Event:
        key = dg.AssetKey(["parsed", job.key.experiment, job.key.datatype])
        if self._request.single:
            return dg.MaterializeResult(asset_key=key, metadata=parsed_metadata(job))
        return parsed_materialization(job)

    def tell_silence(self) -> None:
        """Warn in the run's log if no job ended for ``SILENCE``; at most once per ``SILENCE``."""
        now = datetime.now(UTC)
        if self.jobs and now - max(self._last_done, self._told) >= SILENCE:
            self._told = now
            self._context.log.warning(
                f"waiting for {count_jobs(len(self.jobs))}; none ended for"
                f" {human_duration(now - self._last_done)}. What to do: see the status page, which"
                " says whether parsers ask for jobs and whether tables are made. If it does not"
                " answer, start the sidecar (`gardener api`): parsers and this run then continue"
                " without a restart"
            )

    def check_run(self) -> None:
        """Check that the run is in progress and owns its jobs, every ``CANCEL_POLL_SECONDS``.

        Dagster interrupts a cancelled run's process once. The interrupt is lost if the daemon or
        the code server ends meanwhile, or if a person forces the termination. Another run of the
        same backfill may take over the jobs, which are then reported only to that run.

        Raises:
            DagsterExecutionInterruptedError: The run has ended, was deleted or is being cancelled.
        """
        if time.monotonic() - self._looked < CANCEL_POLL_SECONDS:
            return
        self._looked = time.monotonic()
        try:
            run = self._context.instance.get_run_by_id(self._request.run_id)
        except SQLAlchemyError as error:
            # Dagster's database is down; the next check follows. (A log call never fails a run.)
            self._context.log.warning(f"Dagster's storage does not answer: {one_line(error)}")
            return
        if run is None or run.is_finished or run.status in CANCELLED:
            raise DagsterExecutionInterruptedError
        self._give_up_taken_over()

    def _give_up_taken_over(self) -> None:
        """Fail the jobs that another run of the same requester has taken over."""
        taken_over = self._store.taken_over(
            self._request.requester, run_id=self._request.run_id, numbers=self.jobs
        )
        for number, other in taken_over.items():
            self._fail(
                f"{self.jobs.pop(number)}: taken over by Dagster run {other}, which asked for it"
                f" after this one and waits for it. {ADVICE}see that run"
            )

    @contextmanager
    def withdrawing_if_cancelled(self) -> Iterator[None]:
        """Withdraw the run's requests and its queued jobs that nobody else wants, if cancelled.

        A run that ends for any other reason leaves its jobs queued: its retry waits for them.
        Without a retry, the sensor makes their tables.
        """
        try:
            yield
        except StoreError:
            raise  # the store is unavailable; this is no cancellation
        except BaseException:
            self._withdraw_if_cancelled()
            raise

    def _withdraw_if_cancelled(self) -> None:
        run_id = self._request.run_id
        try:
            run = self._context.instance.get_run_by_id(run_id)
            if run is None or run.status not in CANCELLED:
                self._context.log.warning(
                    f"interrupted, not cancelled: {count_jobs(len(self.jobs))} asked for, not taken"
                    " back; a retry of this run waits for them"
                )
                return
            taken_back = self._store.withdraw(
                run_id, by=cancelled_by(run_id), now=datetime.now(UTC)
            )
        except (SQLAlchemyError, StoreError) as error:
            # The caller re-raises the error. A sensor will withdraw a cancelled run's requests.
            self._context.log.warning(f"nothing was taken back: {one_line(error)}")
            return
        self._context.log.warning(f"withdrew {count_jobs(len(taken_back))} that no parser held")


def parsed_materialization(job: Job) -> dg.AssetMaterialization:
    """Return the materialization of a parsed date."""
    return dg.AssetMaterialization(
        asset_key=dg.AssetKey(["parsed", job.key.experiment, job.key.datatype]),
        partition=job.key.date.isoformat(),
        metadata=parsed_metadata(job),
    )


def parsed_metadata(job: Job) -> dict[str, dg.MetadataValue]:
    """Return the metadata of a parsed date's materialization."""
    metadata: dict[str, dg.MetadataValue] = {
        "job": dg.MetadataValue.text(job.id),
        "attempt": dg.MetadataValue.int(job.attempt),
        "archives": dg.MetadataValue.int(job.archives or 0),
        "archive location": dg.MetadataValue.url(
            f"https://console.cloud.google.com/storage/browser/{job.key.bucket}/{job.key.prefix}"
        ),
        "parser": dg.MetadataValue.text(job.parser or "none: there were no archives"),
    }
    if job.archive_bytes is not None:
        metadata["bytes of archives"] = dg.MetadataValue.int(job.archive_bytes)
    if job.parsed is not None:
        seconds = (job.parsed - job.created).total_seconds()
        metadata["seconds from asked to parsed"] = dg.MetadataValue.float(round(seconds, 1))
    return metadata


def _failure(outcome: Outcome) -> str:
    """Return why a date of the run failed and what to do; empty if it was parsed."""
    job, request = outcome.job, outcome.request
    advice = "see whether the date is still wanted"
    if request.withdrawn is not None:
        why = f"withdrawn by {request.withdrawn_by or 'an unknown requester'}"
    elif job.state is JobState.WITHDRAWN:
        why = f"withdrawn: {job.detail}"
    elif job.parsed is None:
        why = f"failed in its attempt {job.attempt}: {job.error.rstrip('.')}"
        advice = "see the parser's log, and mend what it names"
    else:
        return ""
    return f"{job.id}: {why}. {ADVICE}{advice}"


def _list(client: "storage.Client", source: Source, key: JobKey) -> ArchiveListing | ArchiveError:
    try:
        return list_archives(client, key.bucket, key.prefix, source.filter)
    except ArchiveError as error:  # fails only this date; reported with the other failures
        return error


def _batches(
    days: Sequence[tuple[Source, JobKey]], *, size: int
) -> Iterator[Sequence[tuple[Source, JobKey]]]:
    for start in range(0, len(days), size):
        yield days[start : start + size]
