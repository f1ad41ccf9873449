"""Everything is killed amid a backfill of 60 dates; ``gardener backfill --missing`` does the rest.

A stack of its own: the shared one is not to be killed. One source without a join, for speed. No
parser works after the second start until the rest is asked for: it would be done too soon.
"""

import datetime as dt
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest
import requests
from click.testing import CliRunner, Result
from dagster_ui import DagsterUI
from stack_client import StackClient
from stacks import CONFIG, new_stack, started
from waiting import until

from gardener_api.jobs.job import OPEN, Job, JobState
from gardener_dagster.cli.main import main
from gardener_dagster.local.demo.upload import upload_archives
from gardener_dagster.local.samples.archives import make_samples
from gardener_dagster.local.stack.parts import StackSettings, build_parts
from gardener_dagster.planning.due_tables import job_key

FIRST = dt.date(2024, 3, 1)
DATES = tuple(FIRST + dt.timedelta(days=i) for i in range(60))
SOURCE = "ndt/annotation2"
WITHOUT_JOIN = "\n".join(line for line in CONFIG.splitlines() if "ndt7" not in line)
PARSED_AT_CUT, MADE_AT_CUT = 16, 8
TIMEOUT_SECONDS = 400.0
pytestmark = pytest.mark.timeout(1200)  # 60 dates, on whatever machine
_CANCEL = """
mutation Cancel($id: String!) {
  cancelPartitionBackfill(backfillId: $id) { __typename }
}"""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What was said and done after every process was killed.

    Attributes:
        stack: With all work done.
        at_start: The jobs after the second start.
        resumed: What the command planned while the interrupted backfill went on.
        cancelled: The jobs once that backfill was cancelled.
        rest: What the command did then.
        again: What it did when it was repeated.
    """

    stack: StackClient
    at_start: dict[dt.date, Job]
    resumed: Result
    cancelled: dict[dt.date, Job]
    rest: Result
    again: Result


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cut]:
    settings = new_stack(tmp_path_factory.mktemp("missing"), WITHOUT_JOIN)
    folder = settings.home / "archives"
    expected = make_samples(folder, DATES)

    def backfill(*options: str) -> Result:
        dates = f"{DATES[0]}:{DATES[-1]}"
        return CliRunner().invoke(
            main, ["backfill", "--dates", dates, *options], env=settings.environment
        )

    with started(settings) as stack:
        upload_archives(folder, settings.storage_url, stack.config, DATES)
        first = backfill()
        assert first.exit_code == 0, first.output
        until(lambda: len(parsed(jobs(stack))) >= PARSED_AT_CUT, "no parser works")
        stack.processes.part("worker").signal(signal.SIGKILL)
        until(
            lambda: len(made(jobs(stack))) >= MADE_AT_CUT,
            "the backfill does not get on",
            TIMEOUT_SECONDS,
        )
        stack.processes.kill_all()
    with started(replace(settings, workers=0)) as stack:
        stack.expected.update(expected)
        at_start = jobs(stack)
        resumed = backfill("--missing", "--plan")
        [backfill_id] = re.findall(r"^backfill (\w+):", first.output, re.MULTILINE)
        cancel(stack, backfill_id)
        until(
            lambda: is_still(stack, backfill_id),
            "the backfill is not cancelled",
            TIMEOUT_SECONDS,
            pause=3.0,
        )
        cancelled = jobs(stack)
        with worker(settings):
            rest = backfill("--missing", "--wait")
        yield Cut(
            stack=stack,
            at_start=at_start,
            resumed=resumed,
            cancelled=cancelled,
            rest=rest,
            again=backfill("--missing"),
        )


def jobs(stack: StackClient) -> dict[dt.date, Job]:
    """The newest job of each date."""
    source = stack.config.source(SOURCE)
    found = stack.store.days.latest([job_key(source, date) for date in DATES])
    return {key.date: job for key, job in found.items()}


@contextmanager
def worker(settings: StackSettings) -> Iterator[None]:
    """A parser, for as long as the context lasts."""
    part = build_parts(settings).part("worker")
    part.start()
    try:
        yield
    finally:
        part.signal(signal.SIGKILL)
        if part.process is not None:
            part.process.wait()


def parsed(found: dict[dt.date, Job]) -> set[dt.date]:
    return {date for date, job in found.items() if job.parsed}


def made(found: dict[dt.date, Job]) -> set[dt.date]:
    return {date for date, job in found.items() if job.state is JobState.COMPLETE}


def cancel(stack: StackClient, backfill_id: str) -> None:
    answer = requests.post(
        f"{stack.settings.dagster_url}/graphql",
        json={"query": _CANCEL, "variables": {"id": backfill_id}},
        timeout=60,
    ).json()
    assert answer["data"]["cancelPartitionBackfill"]["__typename"] == "CancelBackfillSuccess"


def is_still(stack: StackClient, backfill_id: str) -> bool:
    """The backfill is over, and nothing of it is in progress.

    Dagster ends it as failed where one of its runs was killed. The retry of a killed run does not
    belong to the backfill for Dagster, and is not cancelled with it: a person terminates it.
    """
    stack.processes.check()
    ui = DagsterUI(url=stack.settings.dagster_url)
    for run_id in stack.dagster.runs_in_progress():
        ui.ask_to_terminate(run_id)
    return (
        stack.dagster.backfill_status(backfill_id) in ("CANCELED", "FAILED")
        and not stack.dagster.runs_in_progress()
        and not any(job.state in OPEN for job in jobs(stack).values())
    )


def test_it_was_in_the_middle(cut: Cut) -> None:
    assert MADE_AT_CUT <= len(made(cut.at_start)) < len(DATES)


def test_what_is_on_its_way_is_not_missing(cut: Cut) -> None:
    assert cut.resumed.exit_code == 0
    assert "Will be made" not in cut.resumed.output
    skipped = re.findall(r"^Skipped: .*\((\d+) dates?\)", cut.resumed.output, re.MULTILINE)
    assert sum(map(int, skipped)) == len(DATES)


def test_exactly_the_rest_is_asked_for(cut: Cut) -> None:
    rest = set(DATES) - made(cut.cancelled)
    assert rest
    assert cut.rest.exit_code == 0, cut.rest.output
    assert f"({len(rest)} date" in cut.rest.output.splitlines()[0]
    for date, job in jobs(cut.stack).items():
        assert job.state is JobState.COMPLETE
        before = cut.cancelled.get(date)
        is_new = before is None or before.number != job.number
        assert is_new is (date in rest), date


def test_repeated_it_asks_for_nothing(cut: Cut) -> None:
    assert cut.again.exit_code == 0
    assert "Nothing is asked for." in cut.again.output


def test_each_date_has_its_rows_once(cut: Cut) -> None:
    for date in DATES:
        want = cut.stack.expected["annotation2", date].raw_rows
        found = cut.stack.value("raw_ndt.annotation2", date, "COUNT(DISTINCT id)")
        assert (found, cut.stack.value("raw_ndt.annotation2", date)) == (want, want), date
