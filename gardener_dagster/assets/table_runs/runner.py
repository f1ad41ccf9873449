"""A run over some dates of a source's tables: dates in threads, events and the log in one thread.

The dates are independent: a failed date does not stop the others. Only the thread that runs the
step sends events and log lines to Dagster; the dates' threads send it messages.
"""

import datetime as dt
import queue
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
from dagster import AssetRecordsFilter, DagsterExecutionInterruptedError, RunsFilter

from gardener_api.formatting import spans
from gardener_api.jobs.job import JobState
from gardener_api.store.schema import StoreError
from gardener_dagster.assets.checks import CHECKS_ONLY, summed_up
from gardener_dagster.assets.failures import raise_failures
from gardener_dagster.assets.keys import tmp_key
from gardener_dagster.assets.metadata import error_metadata
from gardener_dagster.assets.requesters import find_requester
from gardener_dagster.assets.table_runs.date_tables import CheckFailed, DateTables
from gardener_dagster.assets.table_runs.locking import (
    PartitionBusy,
    PartitionLost,
    RunStopped,
    RunWatch,
    utc_now,
)
from gardener_dagster.assets.table_runs.publishing import DecisionVoid, Held
from gardener_dagster.assets.table_runs.work import (
    Checked,
    Made,
    Message,
    Note,
    Operated,
    TablesWork,
)
from gardener_dagster.planning.audits import Verdict
from gardener_dagster.planning.due_tables import job_key
from gardener_dagster.warehouse.errors import WarehouseError

POLL_SECONDS = 1.0
CANCEL_GRACE_SECONDS = 10.0
"""How long dates in progress may continue in a cancelled run. Kubernetes kills after 30 s."""
CANCELLED = "the run was cancelled: re-execute it, or materialize the date again"

Event = dg.AssetMaterialization | dg.MaterializeResult[object] | dg.AssetCheckResult


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    """How a date ended.

    Attributes:
        date: The date.
        error: Why it failed; empty: it did not.
        metadata: Metadata of the error.
        undecided: Whether it needs a person's decision, so that re-executing the run does not help.
        stopped: Whether it was not finished because the run stops.
    """

    date: dt.date
    error: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    undecided: bool = False
    stopped: bool = False


class TablesRun:
    """Makes the dates of one run.

    Args:
        context: Context of the step; only the thread that calls ``events`` uses it.
        work: The work of the run.
        dates: The dates to make.
        at_once: Maximum number of dates in progress at the same time.
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        work: TablesWork,
        dates: Sequence[dt.date],
        *,
        at_once: int,
    ) -> None:
        self._context, self._work, self._dates, self._at_once = context, work, dates, at_once
        self._messages: queue.SimpleQueue[Message | _Outcome] = queue.SimpleQueue()
        self._watch = RunWatch(context.instance, work.run_id, self._warn)
        self._checks: defaultdict[dg.AssetCheckKey, dict[dt.date, Verdict]] = defaultdict(dict)
        self._made: defaultdict[dt.date, list[Made]] = defaultdict(list)
        self._operated: defaultdict[dt.date, list[str]] = defaultdict(list)
        self._known_to_dagster: dict[dg.AssetKey, set[str]] = {}
        self._ended: list[_Outcome] = []
        self._interrupts, self._abort_at = 0, float("inf")

    def events(self) -> Iterator[Event]:
        """Make the dates; yield the events of each date when it is done.

        The tables of a date are reported together; those of a failed date, at the end of the run.
        If tmp were reported first, Dagster's backfill daemon would start a second run for raw.

        Raises:
            dg.Failure: Dates failed; the message names them.
            DagsterExecutionInterruptedError: The run was cancelled, or its process interrupted.
        """
        interrupted: DagsterExecutionInterruptedError | None = None
        threads = ThreadPoolExecutor(self._at_once, thread_name_prefix="date")
        futures = [threads.submit(self._make, date) for date in self._dates]
        try:
            while not all(map(Future.done, futures)) or not self._messages.empty():
                try:
                    yield from self._next_events()
                    self._stop_in_time()
                except DagsterExecutionInterruptedError as error:
                    interrupted = error
                    self._interrupt()
            stopped = self._watch.stopping.is_set()
        finally:  # also if Dagster, interrupted while it handles an event, closes this generator
            self._watch.abort()
            threads.shutdown()
        for date in sorted(self._made):
            yield from self._materializations(date)
        yield from self._check_results()
        outcomes = [future.result() for future in futures]
        if stopped:
            self._end_unfinished(outcomes)
            raise interrupted or DagsterExecutionInterruptedError
        self._raise_failures([outcome for outcome in outcomes if outcome.error])

    # -- in the dates' threads

    def _make(self, date: dt.date) -> _Outcome:
        outcome = self._outcome(date)
        self._messages.put(outcome)
        return outcome

    def _outcome(self, date: dt.date) -> _Outcome:
        if self._watch.stopping.is_set():
            return _Outcome(date=date, stopped=True)
        metadata: dict[str, Any] = {}
        try:
            DateTables(self._work, date, self._watch, self._messages.put).make()
            return _Outcome(date=date)
        except RunStopped:
            return _Outcome(date=date, stopped=True)
        except PartitionBusy as error:
            busy = dg.MetadataValue.dagster_run(error.run_id)
            return _Outcome(
                date=date, error=str(error), metadata={"run that has the partition": busy}
            )
        except (PartitionLost, StoreError) as error:
            return _Outcome(date=date, error=str(error))
        except CheckFailed as error:
            reason, metadata = str(error), {CHECKS_ONLY: True}
        except (Held, DecisionVoid) as error:
            self._fail_job(date, str(error))
            return _Outcome(date=date, error=str(error), undecided=True)
        except WarehouseError as error:
            reason = str(error)
            metadata = error_metadata(error, self._work.warehouse.table_url(error.table))
        except Exception as error:  # noqa: BLE001 - any error fails only this date
            reason = f"{type(error).__name__}: {error}".rstrip(": ")
        self._fail_job(date, reason)
        return _Outcome(date=date, error=reason, metadata=metadata)

    def _fail_job(self, date: dt.date, reason: str, number: int | None = None) -> None:
        """Fail the job of a date with the reason."""
        key = job_key(self._work.source, date)
        try:
            self._work.store.fail_stage(
                key, reason, run_id=self._work.run_id, number=number, now=utc_now()
            )
        except StoreError as error:  # the sensor parsed_jobs fails it later
            self._warn(f"{key}: its failure is not in the job store yet: {error}")

    def _warn(self, text: str) -> None:
        self._messages.put(Note(text=text, warns=True))

    # -- in the step's thread

    def _next_events(self) -> Iterator[Event]:
        try:
            message = self._messages.get(timeout=POLL_SECONDS)
        except queue.Empty:
            return
        match message:
            case Note():
                log = self._context.log.warning if message.warns else self._context.log.info
                log(message.text)
            case Operated() if len(self._dates) == 1:
                self._context.log.info(f"{message.date}: {message.text}")
            case Operated():  # one line per date: each line is a write to Dagster's database
                self._operated[message.date].append(message.text)
            case Checked():
                for name, verdict in message.found.items():
                    check = dg.AssetCheckKey(message.key, name)
                    self._checks[check][message.date] = verdict
            case Made():
                self._made[message.date].append(message)
            case _Outcome():
                self._log_progress(message)
                if not message.error:
                    yield from self._materializations(message.date)

    def _materializations(self, date: dt.date) -> Iterator[Event]:
        waiting = self._made[date]
        while waiting:  # after an interrupt here, the rest is yielded at the end
            yield from self._materialization(waiting.pop(0))

    def _materialization(self, made: Made) -> Iterator[Event]:
        date = made.date.isoformat()
        if made.before:
            self._context.log.info(f"{date}: {made.key.to_user_string()} was made already")
            if date in self._reported(made.key) and not self._others_depend:
                return
        if len(self._dates) == 1:
            yield dg.MaterializeResult(asset_key=made.key, metadata=made.metadata)
        else:
            yield dg.AssetMaterialization(
                asset_key=made.key, partition=date, metadata=made.metadata
            )

    @property
    def _others_depend(self) -> bool:
        """Whether the run has a single date and other steps, which need this step's outputs."""
        selection = self._context.run.asset_selection
        return len(self._dates) == 1 and (selection is None or not selection <= self._work.selected)

    def _reported(self, key: dg.AssetKey) -> set[str]:
        """Return the dates that Dagster has materializations of, by runs of the same requester."""
        if key not in self._known_to_dagster:
            dates = [date.isoformat() for date in self._dates]
            instance = self._context.instance
            records = instance.fetch_materializations(
                AssetRecordsFilter(asset_key=key, asset_partitions=dates), limit=10 * len(dates)
            ).records
            run_ids = list({record.run_id for record in records})
            runs = instance.get_runs(filters=RunsFilter(run_ids=run_ids)) if run_ids else []
            ours = {
                run.run_id
                for run in runs
                if find_requester(run, instance.get_run_by_id) == self._work.requester
            }
            self._known_to_dagster[key] = {
                record.partition_key
                for record in records
                if record.run_id in ours and record.partition_key
            }
        return self._known_to_dagster[key]

    def _log_progress(self, outcome: _Outcome) -> None:
        self._ended.append(outcome)
        failed = sum(bool(each.error) for each in self._ended)
        how = "failed" if outcome.error else "stopped" if outcome.stopped else "done"
        count = f"{len(self._ended)} of {len(self._dates)} dates, {failed} failed"
        line = f"{outcome.date}: {how} ({count})"
        if operated := self._operated.pop(outcome.date, None):
            line += f": {', '.join(operated)}"
        if outcome.error:
            self._context.log.error(f"{line}: {outcome.error}")
        else:
            self._context.log.info(line)

    def _check_results(self) -> Iterator[dg.AssetCheckResult]:
        for check, found in self._checks.items():
            if check in self._context.selected_asset_check_keys:
                yield summed_up(check, found)

    def _raise_failures(self, failed: Sequence[_Outcome]) -> None:
        failed = sorted(failed, key=lambda outcome: (outcome.undecided, outcome.date))
        metadata = dict(failed[0].metadata) if failed else {}
        if not all(CHECKS_ONLY in outcome.metadata for outcome in failed):
            metadata.pop(CHECKS_ONLY, None)
        raise_failures(
            [f"{outcome.date}: {outcome.error}" for outcome in failed],
            count="1 date" if len(failed) == 1 else f"{len(failed)} dates",
            kept="" if all(o.undecided for o in failed) else "what was made is kept",
            metadata=metadata | {"failed dates": spans(outcome.date for outcome in failed)},
        )

    # -- cancelled, or interrupted

    def _interrupt(self) -> None:
        """Stop after the dates in progress if cancelled; at once if not, or on a 2nd interrupt."""
        self._interrupts += 1
        self._watch.look()
        self._watch.stopping.set()
        if not self._watch.cancelled or self._interrupts > 1:
            self._watch.abort()

    def _stop_in_time(self) -> None:
        self._watch.look_now_and_then()
        if not self._watch.stopping.is_set():
            return
        if self._abort_at == float("inf"):
            self._abort_at = time.monotonic() + CANCEL_GRACE_SECONDS
            self._context.log.warning("stopping: no further date is begun")
        elif time.monotonic() > self._abort_at:
            self._watch.abort()

    def _end_unfinished(self, outcomes: Sequence[_Outcome]) -> None:
        """Fail the jobs of dates that a cancelled run did not finish, so that nothing starts them.

        A run that was interrupted but not cancelled leaves the jobs unchanged: its retry continues
        them.
        """
        if not self._watch.cancelled:
            return
        for outcome in outcomes:
            if not outcome.stopped:
                continue
            job = self._work.store.latest(job_key(self._work.source, outcome.date))
            waits = job is not None and job.state is JobState.POST_PROCESSING
            ours = waits and tmp_key(self._work.source) in self._work.selected
            self._fail_job(outcome.date, CANCELLED, job.number if job and ours else None)
