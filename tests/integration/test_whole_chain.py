"""A whole-chain backfill while parsers are slow, and one that a person cancels. Stock daemon."""

import datetime as dt
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import dagster as dg
import pytest
from dagster_instance import instance_at
from dagster_ui import DagsterUI
from stack_client import StackClient
from waiting import until

from gardener_api.jobs.job import ENDED, Job, JobState
from gardener_dagster.automation.run_requests import NOT_ENDED
from gardener_dagster.local.demo.upload import upload_archives
from gardener_dagster.local.samples.archives import make_samples
from gardener_dagster.planning.due_tables import job_key

DATES = tuple(dt.date(2024, 8, day) for day in range(1, 6))
CANCELLED = tuple(dt.date(2024, 7, day) for day in range(1, 6))
DATATYPES = ("annotation2", "ndt7")
CHAIN = [
    *(["parsed", "ndt", datatype] for datatype in DATATYPES),
    *([f"{table}_ndt", datatype] for datatype in DATATYPES for table in ("tmp", "raw")),
    ["ndt", "ndt7"],
]
QUIET_SECONDS = 35.0
"""The backfill daemon looks every 30 s."""


@pytest.fixture(scope="module")
def archives(stack: StackClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder: Path = tmp_path_factory.mktemp("archives")
    stack.expected.update(make_samples(folder, [*DATES, *CANCELLED]))
    upload_archives(folder, stack.settings.storage_url, stack.config, [*DATES, *CANCELLED])
    yield
    stack.processes.part("worker").signal(signal.SIGCONT)


def jobs(stack: StackClient, dates: tuple[dt.date, ...], name: str = "ndt/ndt7") -> list[Job]:
    source = stack.config.source(name)
    found = (stack.store.latest(job_key(source, date)) for date in dates)
    return [job for job in found if job]


def parsed(stack: StackClient, dates: tuple[dt.date, ...]) -> list[Job]:
    return [job for job in jobs(stack, dates) if job.parsed]


def hold_the_parser(stack: StackClient, dates: tuple[dt.date, ...]) -> None:
    """Stops it when it has parsed two dates, at the least."""
    until(lambda: len(parsed(stack, dates)) >= 2, "nothing is parsed", pause=0.005)
    stack.processes.part("worker").signal(signal.SIGSTOP)


@pytest.mark.usefixtures("archives")
def test_d45_the_first_dates_are_joined_before_the_last_is_parsed(stack: StackClient) -> None:
    backfill = stack.dagster.backfill(CHAIN, DATES)
    hold_the_parser(stack, DATES)
    first = parsed(stack, DATES)[0].key.date.isoformat()
    until(
        lambda: stack.materialized("ndt", "ndt7").get(first) == "MATERIALIZED",
        f"{first} is not joined while the parser stands still",
        400,
    )
    assert len(parsed(stack, DATES)) < len(DATES)
    stack.processes.part("worker").signal(signal.SIGCONT)
    assert stack.wait_for_backfill(backfill) == "COMPLETED_SUCCESS"
    for date in DATES:
        assert stack.value("ndt.ndt7", date) == stack.expected["ndt7", date].joined_rows
    for name in ("ndt/ndt7", "ndt/annotation2"):
        for job in jobs(stack, DATES, name):
            done = [o.operation for o in stack.store.tables.operations(job.key)]
            assert done.count("load") == 1, f"{job.id}: {done}"
            assert done.count("copy") == 1, f"{job.id}: {done}"


@pytest.mark.usefixtures("archives")
def test_of_a_cancelled_backfill_nothing_goes_on(stack: StackClient) -> None:
    backfill = stack.dagster.backfill(CHAIN, CANCELLED)
    hold_the_parser(stack, CANCELLED)
    DagsterUI(url=stack.settings.dagster_url).cancel_backfill(backfill)
    assert stack.wait_for_backfill(backfill) == "CANCELED"
    stack.processes.part("worker").signal(signal.SIGCONT)
    every = [j for name in ("ndt/ndt7", "ndt/annotation2") for j in jobs(stack, CANCELLED, name)]
    until(lambda: open_jobs(stack, every) == [], f"goes on: {open_jobs(stack, every)}")
    with instance_at(stack.settings.home / "dagster") as instance:
        until(lambda: not unended(instance), "runs go on")
        runs = instance.get_runs_count()
        with pytest.raises(AssertionError, match="none came"):
            until(lambda: instance.get_runs_count() > runs, "none came", QUIET_SECONDS)
    assert open_jobs(stack, every) == []
    assert all(job.state is not JobState.COMPLETE for job in jobs(stack, CANCELLED[-1:]))


def open_jobs(stack: StackClient, every: list[Job]) -> list[str]:
    latest = (stack.store.latest(job.key) for job in every)
    return [f"{job.id} {job.state}" for job in latest if job and job.state not in ENDED]


def unended(instance: dg.DagsterInstance) -> Sequence[str]:
    return instance.get_run_ids(dg.RunsFilter(statuses=NOT_ENDED))
