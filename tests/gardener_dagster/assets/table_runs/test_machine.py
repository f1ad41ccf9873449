"""Random runs of many dates, with failures, crashes, cancels and evictions, against a model.

Each example is a history of runs over the dates; after each run, tables, job store and Dagster are
compared with what must hold whatever happened; a last undisturbed run has to bring every date home.
"""

import datetime as dt
import os
import queue
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import dagster as dg
import pytest
from chain import resumed
from dagster import AssetRecordsFilter, DagsterRunStatus
from fake_warehouse import FAKES, FakeGcs, FakeTables, FakeWarehouse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from job_requests import request_for
from simulated import Parser

from gardener_api.config import GardenerConfig, load_config
from gardener_api.jobs.job import JobState
from gardener_api.store.store import JobStore
from gardener_dagster.assets.keys import RANGE_END_TAG, RANGE_START_TAG
from gardener_dagster.assets.table_runs import locking, runner
from gardener_dagster.definitions import build_defs
from gardener_dagster.planning.due_tables import job_key
from gardener_dagster.resources import JobStoreResource
from gardener_dagster.warehouse.errors import WarehouseError
from gardener_dagster.warehouse.names import JobContext

DATES = [dt.date(2024, 3, n) for n in range(1, 5)]
OPERATIONS = ["load", "dedup", "copy", "delete", "join"]
KEYS = [dg.AssetKey([dataset, "ndt7"]) for dataset in ("tmp_ndt", "raw_ndt", "ndt")]
CONFIG = """
start_date: 2024-01-01
tables: {dates_at_once: 2}
audits: {ids_of_previous: {action: warn}}
sources:
- {bucket: archive-mlab, experiment: ndt, datatype: annotation2}
- {bucket: archive-mlab, experiment: ndt, datatype: ndt7, target_datasets: {join: ndt}}
"""


class Crash(BaseException):
    """The process is gone: nothing is written any more, whatever the code would do."""


@dataclass(frozen=True)
class Plan:
    """A run, and what happens in it.

    Attributes:
        resume: Whether it goes on with the run before; else it makes its dates anew.
        failing: Operations that fail, by date and name.
        end: What becomes of the run.
        at: The date and operation at which that happens.
        reparsed: Dates that are parsed again before it.
    """

    resume: bool
    failing: frozenset[tuple[dt.date, str]]
    end: Literal["ends", "crash", "cancel", "evict"]
    at: tuple[dt.date, str]
    reparsed: frozenset[dt.date]


POINTS = st.tuples(st.sampled_from(DATES), st.sampled_from(OPERATIONS))
PLANS = st.builds(
    Plan,
    resume=st.booleans(),
    failing=st.frozensets(POINTS, max_size=3),
    end=st.sampled_from(["ends", "crash", "cancel", "evict"]),
    at=POINTS,
    reparsed=st.frozensets(st.sampled_from(DATES), max_size=2),
)


class CrashingQueue(queue.SimpleQueue[Any]):
    """Where the step's thread waits: it dies with the process, with what was not taken yet."""

    crashed: threading.Event

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if self.crashed.is_set():
            raise Crash
        return super().get(block, timeout)


@dataclass
class World:
    """Everything outside the step, and what is known of it."""

    config: GardenerConfig
    store: JobStore
    tables: FakeTables
    instance: dg.DagsterInstance
    job: dg.JobDefinition
    parses: dict[dt.date, int] = field(default_factory=dict)

    def parse(self, date: dt.date) -> None:
        number = self.parses.get(date, 0) + 1
        key = job_key(self.config.source("ndt/ndt7"), date)
        ask = request_for(key, requester=f"parse {number}", archives=1)
        [job] = self.store.enqueue([ask], now=dt.datetime.now(dt.UTC))
        if job.state is not JobState.QUEUED:
            return  # a run died while it made the tables: who asks gets those of the open job
        [leased] = self.store.lease(1, now=dt.datetime.now(dt.UTC))
        Parser(self.store).finish(leased)
        self.parses[date] = number
        rows = [f"{date}-{self.parses[date]}-{n}" for n in (1, 2, 2)]
        self.tables.parsed["ndt7", date] = rows
        self.tables.rows[f"raw_ndt.annotation2${date:%Y%m%d}"] = rows[:1]

    def run(self, plan: Plan, before: str | None) -> dg.DagsterRun:
        crashed = threading.Event()
        happened = threading.Event()
        undone: set[tuple[dt.date, str]] = set()

        def hook(operation: str, date: dt.date, context: JobContext) -> None:
            if crashed.is_set():
                raise Crash
            here = (date, operation)
            if here == plan.at and plan.end != "ends" and not happened.is_set():
                happened.set()
                self._happen(plan.end, context, crashed)
            if here in plan.failing:
                undone.add(here)
                raise WarehouseError("no", operation=operation, table="t", advice="mend it")

        self.tables.hook = hook
        ends = {RANGE_START_TAG: DATES[0].isoformat(), RANGE_END_TAG: DATES[-1].isoformat()}
        CrashingQueue.crashed = crashed
        with mock.patch.object(queue, "SimpleQueue", CrashingQueue), dying(self.store, crashed):
            result = self.job.execute_in_process(
                asset_selection=KEYS,
                instance=self.instance,
                tags=ends | (resumed(before) if plan.resume and before else {}),
                raise_on_error=False,
            )
        run = self.instance.get_run_by_id(result.run_id)
        assert run is not None
        if not happened.is_set():
            assert (run.status is DagsterRunStatus.SUCCESS) == (not undone)
            said = " ".join(
                str(event.step_failure_data.user_failure_data.description)
                for event in result.get_step_failure_events()
                if event.step_failure_data.user_failure_data
            )
            named = {date for date in DATES if f"{date}: " in said}
            assert named == {date for date, _ in undone}
        return run

    def _happen(self, end: str, context: JobContext, crashed: threading.Event) -> None:
        if end == "crash":
            crashed.set()
            raise Crash
        if end == "cancel":
            run = self.instance.get_run_by_id(context.run_id)
            assert run is not None
            self.instance.report_run_canceling(run)
        os.kill(os.getpid(), signal.SIGINT)

    def check(self, run: dg.DagsterRun) -> None:
        """What holds after any run."""
        reported = {key: self._reported(key) for key in KEYS}
        for date in DATES:
            raw = self.store.tables.partition("raw_ndt.ndt7", date)
            joined = self.store.tables.partition("ndt.ndt7", date)
            # What the store says is there; it may be one write behind where a run died.
            if raw is not None and run.status is DagsterRunStatus.SUCCESS:
                assert len(self.tables.rows[f"raw_ndt.ndt7${date:%Y%m%d}"]) == raw.rows == 2
            # Dagster is told of nothing that the store does not know.
            assert date not in reported[KEYS[1]] or raw is not None
            assert date not in reported[KEYS[2]] or joined is not None
            # Never a row twice, never rows of two parses.
            for table in ("raw_ndt", "ndt"):
                rows = self.tables.rows.get(f"{table}.ndt7${date:%Y%m%d}", [])
                assert len(rows) == len(set(rows))
                assert len({row.rpartition("-")[0] for row in rows}) <= 1

    def check_home(self) -> None:
        """What holds after an undisturbed run."""
        reported = {key: self._reported(key) for key in KEYS}
        for date in DATES:
            rows = sorted(set(self.tables.parsed["ndt7", date]))
            day = f"{date:%Y%m%d}"
            assert self.tables.rows[f"raw_ndt.ndt7${day}"] == rows
            assert self.tables.rows[f"ndt.ndt7${day}"] == rows
            assert f"tmp_ndt.ndt7${day}" not in self.tables.rows
            job = self.store.latest(job_key(self.config.source("ndt/ndt7"), date))
            assert job is not None
            assert job.state is JobState.COMPLETE
            for key in KEYS:
                assert date in reported[key]
            for check in self.store.checks.of(job.key):
                assert check.result.name in ("annotated", "ids_of_previous") or check.result.passed
            for table in ("tmp_ndt.ndt7", "ndt.ndt7"):
                assert self.store.partition_locks.holder(table, date) is None

    def _reported(self, key: dg.AssetKey) -> set[dt.date]:
        dates = [date.isoformat() for date in DATES]
        records = self.instance.fetch_materializations(
            AssetRecordsFilter(asset_key=key, asset_partitions=dates), limit=1_000
        ).records
        return {dt.date.fromisoformat(str(record.partition_key)) for record in records}


@contextmanager
def dying(store: JobStore, crashed: threading.Event) -> Iterator[None]:
    """No thread writes into the store once the process is gone."""
    real = JobStore.open

    def opened(*args: Any, **options: Any) -> JobStore:
        mortal = real(*args, **options)
        for name in ("stage", "fail_stage"):
            setattr(mortal, name, _mortal(getattr(mortal, name), crashed))
        for part, names in (
            (mortal.tables, ("record_partition", "record_join", "record_operation", "begin_join")),
            (mortal.partition_locks, ("take", "release")),
            (mortal.checks, ("record",)),
        ):
            for name in names:
                setattr(part, name, _mortal(getattr(part, name), crashed))
        return mortal

    with mock.patch.object(JobStore, "open", opened):
        yield


def _mortal(method: Any, crashed: threading.Event) -> Any:
    def call(*args: Any, **options: Any) -> Any:
        if crashed.is_set():
            raise Crash
        return method(*args, **options)

    return call


@contextmanager
def world() -> Iterator[World]:
    # Threads write at the same time, which Dagster's instance in memory refuses now and then.
    with (
        tempfile.TemporaryDirectory() as folder,
        dg.DagsterInstance.local_temp(folder) as instance,
    ):
        path = Path(folder) / "gardener.yml"
        path.write_text(CONFIG, encoding="utf-8")
        config = load_config(path)
        url = f"sqlite:///{folder}/gardener.db"
        store = JobStore.open(url, lease=dt.timedelta(hours=1), max_attempts=2)
        fake = FAKES[folder] = FakeTables()
        defs = build_defs(
            config,
            job_store=JobStoreResource(url=url, lease_seconds=3600, max_attempts=2),
            warehouse=FakeWarehouse(project="p", fake=folder),
            gcs=FakeGcs(project="p", parsed_bucket="etl-mlab", fake=folder),
        )
        job = defs.resolve_implicit_global_asset_job_def()
        try:
            yield World(config, store, fake, instance, job)
        finally:
            store.close()
            del FAKES[folder]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(locking, "LOCK_POLL_SECONDS", 0.02)


@settings(
    max_examples=int(os.environ.get("GARDENER_EXAMPLES", "4")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(plans=st.lists(PLANS, min_size=1, max_size=2))
def test_whatever_happens_to_runs_every_date_arrives_once(plans: list[Plan]) -> None:
    with world() as there:
        for date in DATES:
            there.parse(date)
        before: str | None = None
        for plan in plans:
            for date in plan.reparsed if before else ():
                there.parse(date)
            run = there.run(plan, before)
            there.check(run)
            before = run.run_id
        last = Plan(
            resume=True,
            failing=frozenset(),
            end="ends",
            at=(DATES[0], "load"),
            reparsed=frozenset(),
        )
        done = len(there.tables.log)
        run = there.run(last, before)
        assert run.status is DagsterRunStatus.SUCCESS
        there.check(run)
        there.check_home()
        # Nothing is done twice: once more finds all done.
        done = len(there.tables.log)
        there.run(last, run.run_id)
        assert len(there.tables.log) == done
