"""Every process of a stack is killed at once amid its work; the next start on its home does all.

A stack of its own: the shared one is not to be killed.
"""

import datetime as dt
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from dagster_ui import DagsterUI
from stack_client import StackClient
from stacks import new_stack, started
from waiting import until

from gardener_api.jobs.job import Job, JobKey, JobState
from gardener_dagster.local.demo.upload import upload_archives
from gardener_dagster.local.samples.archives import make_samples
from gardener_dagster.planning.daily import due_at, newest_due
from gardener_dagster.planning.due_tables import job_key

BACKFILLED = tuple(dt.date(2024, 3, day) for day in range(1, 5))
SOURCES = ("ndt/annotation2", "ndt/ndt7")
ARRIVAL_SECONDS = 300.0
"""In which every date is to be complete after the second start."""
CHAIN = [
    ["parsed", "ndt", "annotation2"], ["tmp_ndt", "annotation2"], ["raw_ndt", "annotation2"],
    ["parsed", "ndt", "ndt7"], ["tmp_ndt", "ndt7"], ["raw_ndt", "ndt7"], ["ndt", "ndt7"],
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PowerCut:
    """What was there before it, and the stack as it is after it, with all work done."""

    stack: StackClient
    dates: tuple[dt.date, ...]
    at_cut: dict[JobKey, Job]
    seconds: float  # from the second start until all dates were complete
    in_progress: list[str]  # runs
    backfill: str


@pytest.fixture(scope="module")
def cut(own_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PowerCut]:
    yesterday = newest_due(dt.datetime.now(dt.UTC))
    dates = (*BACKFILLED, yesterday)
    settings = new_stack(tmp_path_factory.mktemp("power"), postgresql=own_database)
    folder: Path = settings.home / "archives"
    expected = make_samples(folder, dates)
    with started(settings) as stack:
        upload_archives(folder, settings.storage_url, stack.config, dates)
        ui = DagsterUI(url=settings.dagster_url)
        backfill = stack.dagster.backfill(CHAIN, BACKFILLED)
        until(lambda: is_amid(jobs(stack, dates)), "the backfill does not come to its middle")
        # Not one more is parsed: the daily run waits for both of its jobs, the backfill for some.
        stack.processes.part("worker").signal(signal.SIGSTOP)
        ui.test_tick("daily", due_at(yesterday))
        until(lambda: len(jobs(stack, (yesterday,))) == len(SOURCES), "the daily run does not ask")
        at_cut = jobs(stack, dates)
        stack.processes.kill_all()
    with started(settings) as stack:
        stack.expected.update(expected)
        begun = dt.datetime.now(dt.UTC)
        until(
            lambda: is_done(stack, jobs(stack, dates), backfill),
            "not all dates are complete",
            ARRIVAL_SECONDS,
        )
        yield PowerCut(
            stack=stack,
            dates=dates,
            at_cut=at_cut,
            seconds=(dt.datetime.now(dt.UTC) - begun).total_seconds(),
            in_progress=stack.dagster.runs_in_progress(),
            backfill=backfill,
        )


def jobs(stack: StackClient, dates: tuple[dt.date, ...]) -> dict[JobKey, Job]:
    keys = [job_key(stack.config.source(name), date) for name in SOURCES for date in dates]
    return stack.store.days.latest(keys)


def is_amid(found: dict[JobKey, Job]) -> bool:
    """Some dates are parsed, and some are not."""
    parsed = [job for job in found.values() if job.parsed]
    return len(found) == len(SOURCES) * len(BACKFILLED) and 2 <= len(parsed) < len(found)


def is_done(stack: StackClient, found: dict[JobKey, Job], backfill: str) -> bool:
    stack.processes.check()
    return (
        all(job.state is JobState.COMPLETE for job in found.values())
        and not stack.dagster.runs_in_progress()
        and stack.dagster.backfill_status(backfill).startswith("COMPLETED")
    )


def test_it_was_in_the_middle(cut: PowerCut) -> None:
    states = {job.state for job in cut.at_cut.values()}
    assert len(cut.at_cut) == len(SOURCES) * len(cut.dates)
    assert JobState.QUEUED in states
    assert any(job.parsed for job in cut.at_cut.values())
    assert not all(job.state is JobState.COMPLETE for job in cut.at_cut.values())


def test_d29_every_date_is_complete_in_time_and_no_run_is_left_in_progress(cut: PowerCut) -> None:
    assert cut.seconds <= ARRIVAL_SECONDS
    assert cut.in_progress == []
    assert cut.stack.dagster.backfill_status(cut.backfill) == "COMPLETED_SUCCESS"


def test_d29_nothing_was_asked_for_anew(cut: PowerCut) -> None:
    """What was queued stays so; what a parser held comes back as its next attempt."""
    for key, job in jobs(cut.stack, cut.dates).items():
        assert (job.number, job.generation) == (cut.at_cut[key].number, 1), key


def test_d29_each_row_is_there_once(cut: PowerCut) -> None:
    for date in cut.dates:
        for name, tables in (
            ("annotation2", ("raw_ndt.annotation2",)),
            ("ndt7", ("raw_ndt.ndt7", "ndt.ndt7")),
        ):
            for table in tables:
                want = cut.stack.expected[name, date].raw_rows
                assert cut.stack.value(table, date) == want, (table, date)
                assert cut.stack.value(table, date, "COUNT(DISTINCT id)") == want, (table, date)


@pytest.mark.parametrize("path", [("parsed", "ndt", "ndt7"), ("raw_ndt", "ndt7"), ("ndt", "ndt7")])
def test_d29_dagster_shows_each_date(cut: PowerCut, path: tuple[str, ...]) -> None:
    shown = cut.stack.materialized(*path)
    assert {shown[date.isoformat()] for date in cut.dates} == {"MATERIALIZED"}
