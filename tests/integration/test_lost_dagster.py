"""Runs, daemon and sidecar that are lost while a run of ``parse`` waits, as real processes.

Parsers that are lost are in ``test_lost_parsers``.
"""

import datetime as dt
import signal
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from dagster_instance import instance_at
from dagster_ui import DagsterUI
from renewing import renewing
from stack_client import StackClient
from waiting import until

from gardener_api.client import JobsClient
from gardener_api.jobs.job import Job, JobState
from gardener_dagster.automation.sensor_inputs.dagster_runs import AUTO_RETRY_TAG
from gardener_dagster.local.demo.upload import upload_archives
from gardener_dagster.local.samples.archives import make_samples
from gardener_dagster.planning.due_tables import job_key

HELD, NOT_HELD, KILLED, TOO_LATE, BAD = (dt.date(2024, 2, day) for day in (1, 2, 5, 8, 11))
WANTED = [
    ("annotation2", HELD), ("annotation2", NOT_HELD),  # by a run that is cancelled
    ("ndt7", KILLED), ("annotation2", KILLED), ("annotation2", TOO_LATE),  # by two that are killed
    ("ndt7", BAD),
]  # fmt: skip
NDT7, ANNOTATION2 = ("parsed", "ndt", "ndt7"), ("parsed", "ndt", "annotation2")


@dataclass(frozen=True, kw_only=True)
class Lost:
    """What was seen on the way."""

    killed: str  # a run
    resumed: str  # Dagster's retry of it, while its jobs are queued
    too_late: str  # the re-execution of another run that was killed, when its job is complete
    failed: str  # the run of a date that no parser can read
    at_cancel: dict[dt.date, Job]  # of annotation2
    given_up: Job  # the one that a parser held, when it gave it up
    queued: dict[str, Job]  # of the killed run, by datatype, before it was killed


@pytest.fixture(scope="module")
def lost(stack: StackClient, tmp_path_factory: pytest.TempPathFactory) -> Lost:
    """All is lost one after another; at the end the runs that were not cancelled have ended."""
    folder: Path = tmp_path_factory.mktemp("archives")
    dates = (HELD, NOT_HELD, KILLED, TOO_LATE, BAD)
    stack.expected.update(make_samples(folder, dates))
    for archive in (folder / f"ndt/ndt7/{BAD:%Y/%m/%d}").iterdir():
        archive.write_bytes(b"this is no archive")
    upload_archives(folder, stack.settings.storage_url, stack.config, dates)
    runs = DagsterUI(url=stack.settings.dagster_url)
    with ExitStack() as cleanup:
        worker = stack.processes.part("worker")
        cleanup.callback(worker.signal, signal.SIGCONT)
        worker.signal(signal.SIGSTOP)
        cancelled = runs.launch([ANNOTATION2], HELD, NOT_HELD)
        killed = runs.launch([NDT7, ANNOTATION2], KILLED, KILLED)
        killed_too = runs.launch([ANNOTATION2], TOO_LATE, TOO_LATE)
        failed = runs.launch([NDT7], BAD, BAD)
        until(lambda: all(is_queued(stack, *wanted) for wanted in WANTED), "not all asked for")

        parser = cleanup.enter_context(JobsClient(stack.settings.jobs_url))
        held = parser.next()
        assert held is not None
        assert held.date == HELD
        with renewing(stack.store, held.id):
            runs.terminate(cancelled)
            until(lambda: runs.status(cancelled) == "CANCELED", "it was not cancelled")
        at_cancel = {day: job(stack, "annotation2", day) for day in (HELD, NOT_HELD)}
        parser.heartbeat(held.id)
        parser.error(held.id, "somebody wants my machine")
        given_up = job(stack, "annotation2", HELD)

        queued = {name: job(stack, name, KILLED) for name in ("ndt7", "annotation2")}
        for run in (killed, killed_too):
            runs.kill(run)
        for run in (killed, killed_too):
            until(lambda r=run: runs.status(r) == "FAILURE", "nobody noticed that it was killed")  # type: ignore[misc]
        until(lambda: retry_of(stack, killed), "it is not retried")
        resumed = retry_of(stack, killed)
        until(lambda: runs.status(resumed) == "STARTED", "it was not started again")
        for name in ("sidecar", "daemon"):
            restart(stack, name)
        worker.signal(signal.SIGCONT)
        for run in (resumed, failed):
            until(lambda r=run: runs.status(r) in ("SUCCESS", "FAILURE"), "a run waits for ever")  # type: ignore[misc]
        for name, day in (("ndt7", KILLED), ("annotation2", TOO_LATE)):
            until(
                lambda n=name, d=day: job(stack, n, d).state is JobState.COMPLETE,  # type: ignore[misc]
                f"the tables of {name} on {day} were not made",
            )
        too_late = runs.re_execute(killed_too)
        until(lambda: runs.status(too_late) in ("SUCCESS", "FAILURE"), "it waits for ever")
    return Lost(
        killed=killed,
        resumed=resumed,
        too_late=too_late,
        failed=failed,
        at_cancel=at_cancel,
        given_up=given_up,
        queued=queued,
    )


def is_queued(stack: StackClient, datatype: str, date: dt.date) -> bool:
    found = stack.store.latest(job_key(stack.config.source(f"ndt/{datatype}"), date))
    return found is not None and found.state is JobState.QUEUED


def job(stack: StackClient, datatype: str, date: dt.date) -> Job:
    found = stack.store.latest(job_key(stack.config.source(f"ndt/{datatype}"), date))
    assert found is not None
    return found


def retry_of(stack: StackClient, run_id: str) -> str:
    """The run that Dagster started in place of one that was lost; empty: none yet."""
    with instance_at(stack.settings.home / "dagster") as instance:
        run = instance.get_run_by_id(run_id)
        return run.tags.get(AUTO_RETRY_TAG, "") if run else ""


def restart(stack: StackClient, name: str) -> None:
    """Kill a part, and start it again."""
    part = stack.processes.part(name)
    part.signal(signal.SIGKILL)
    until(part.group_is_gone, f"{name} is still there")
    part.start()
    stack.processes.wait_until_ready(name)


@pytest.fixture
def runs(stack: StackClient) -> DagsterUI:
    return DagsterUI(url=stack.settings.dagster_url)


def test_cancelling_a_run_withdraws_what_no_parser_holds(lost: Lost) -> None:
    assert lost.at_cancel[NOT_HELD].state is JobState.WITHDRAWN
    assert lost.at_cancel[HELD].state is JobState.INIT


def test_what_a_parser_then_gives_up_is_not_handed_out_again(
    stack: StackClient, lost: Lost
) -> None:
    assert lost.given_up.state is JobState.WITHDRAWN
    assert job(stack, "annotation2", HELD) == lost.given_up


def test_a_run_that_was_killed_leaves_its_jobs_to_its_retry(
    stack: StackClient, lost: Lost, runs: DagsterUI
) -> None:
    assert runs.status(lost.killed) == "FAILURE"
    assert runs.status(lost.resumed) == "SUCCESS"
    for datatype, before in lost.queued.items():
        after = job(stack, datatype, KILLED)
        assert (after.number, after.generation, after.attempt) == (before.number, 1, 1)
        states = [event.state for event in stack.store.events(after.number)]
        assert states.count(JobState.INIT) == states.count(JobState.POST_PROCESSING) == 1


def test_a_run_that_was_killed_is_re_executed_when_all_is_done(
    stack: StackClient, lost: Lost, runs: DagsterUI
) -> None:
    assert runs.status(lost.too_late) == "SUCCESS"
    found = job(stack, "annotation2", TOO_LATE)
    assert (found.generation, found.attempt, found.state) == (1, 1, JobState.COMPLETE)


@pytest.mark.usefixtures("lost")
def test_the_day_is_complete_and_each_row_is_there_once(stack: StackClient) -> None:
    want = stack.expected["ndt7", KILLED]
    assert stack.value("raw_ndt.ndt7", KILLED) == want.raw_rows
    assert stack.value("raw_ndt.ndt7", KILLED, "COUNT(DISTINCT id)") == want.raw_rows
    for path in (NDT7, ANNOTATION2, ("raw_ndt", "ndt7"), ("raw_ndt", "annotation2")):
        assert stack.materialized(*path)[KILLED.isoformat()] == "MATERIALIZED"
    for datatype in ("ndt7", "annotation2"):
        operations = stack.store.tables.operations(job(stack, datatype, KILLED).key)
        assert [o.operation for o in operations].count("load") == 1


def test_the_last_attempts_message_is_in_dagsters_event_log(
    stack: StackClient, lost: Lost, runs: DagsterUI
) -> None:
    assert job(stack, "ndt7", BAD).state is JobState.FAILED
    assert runs.status(lost.failed) == "FAILURE"
    [failure] = runs.failures(lost.failed)
    assert "failed in its attempt 3" in failure
    assert "archives could be read" in failure
