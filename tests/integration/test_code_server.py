"""Runs as forks of one process, and what becomes of a waiting run that nobody interrupts."""

import datetime as dt
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dagster_ui import DagsterUI
from stack_client import StackClient
from waiting import until

from gardener_api.jobs import JobState, Priority
from gardener_dagster.local.upload import upload_archives
from gardener_dagster.planning import job_key
from gardener_dagster.run_queue import NICENESS

PARSED = ("parsed", "ndt", "annotation2")
CANCELLED, ORPHANED, AFTER, ENDING, NEXT = DATES = tuple(
    dt.date(2024, 9, day) for day in range(1, 6)
)


@pytest.fixture(scope="module")
def ui(stack: StackClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterUI]:
    """With an archive for each date that no parser will look at: they are stopped."""
    folder: Path = tmp_path_factory.mktemp("archives")
    for date in DATES:
        path = folder / f"ndt/annotation2/{date:%Y/%m/%d}/a.tgz"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"nobody parses it")
    upload_archives(folder, stack.settings.storage_url, stack.config, DATES)
    worker = stack.processes.part("worker")
    worker.signal(signal.SIGSTOP)
    yield DagsterUI(url=stack.settings.dagster_url)
    worker.signal(signal.SIGCONT)


def state(stack: StackClient, date: dt.date) -> JobState | None:
    job = stack.store.latest(job_key(stack.config.source("ndt/annotation2"), date))
    return job.state if job else None


@contextmanager
def waiting_run(stack: StackClient, ui: DagsterUI, date: dt.date) -> Iterator[tuple[str, int]]:
    """A run that waits for a parser, and its process."""
    run_id = ui.launch([PARSED], date, date)
    until(lambda: state(stack, date) is JobState.QUEUED, "it does not ask")
    pid = ui.process_of(run_id)
    assert is_alive(pid)
    yield run_id, pid
    until(lambda: state(stack, date) is JobState.WITHDRAWN, "its job was not withdrawn", 60)
    until(lambda: not is_alive(pid), "its process waits on", 60)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_run_that_is_over_for_dagster_alone_withdraws(stack: StackClient, ui: DagsterUI) -> None:
    with waiting_run(stack, ui, CANCELLED) as (run_id, _):
        ui.terminate(run_id, force=True)


def test_runs_are_forks_of_one_process_that_may_be_lost(stack: StackClient, ui: DagsterUI) -> None:
    with waiting_run(stack, ui, ORPHANED) as (run_id, pid):
        server = parent(pid)
        assert "gardener_dagster.preloaded" in Path(f"/proc/{server}/cmdline").read_text()
        code_server = stack.processes.part("code server").process
        assert code_server is not None
        assert parent(server) == code_server.pid
        # A daily run, and what they all depend on, comes first.
        assert os.getpriority(os.PRIO_PROCESS, pid) == NICENESS[Priority.BACKFILL] > 0
        assert os.getpriority(os.PRIO_PROCESS, server) == NICENESS[Priority.DAILY] == 0
        os.kill(server, signal.SIGKILL)
        # Dagster cannot see the run's process any more, and takes it for dead; the process notices.
        until(lambda: ui.status(run_id) == "FAILURE", "nobody noticed", 60)
    with waiting_run(stack, ui, AFTER) as (run_id, pid):
        assert parent(pid) not in (server, 1)
        ui.terminate(run_id)


def test_a_run_that_is_due_while_the_code_server_ends_is_started_by_the_next(
    stack: StackClient, ui: DagsterUI
) -> None:
    part = stack.processes.part("code server")
    log = stack.processes.part("daemon").log
    assert part.process is not None
    with waiting_run(stack, ui, ENDING) as (kept, _):
        part.process.send_signal(signal.SIGTERM)  # it waits for that run, and starts none any more
        due = ui.launch([PARSED], NEXT, NEXT)
        until(lambda: "the code server is ending" in log.read_text(), "nobody tried to start it")
        part.process.kill()
        part.process.wait()
        part.process = None
        part.start()
        until(lambda: state(stack, NEXT) is JobState.QUEUED, "it was not started")
        assert ui.status(kept) == "STARTED"
        ui.terminate(kept, force=True)  # its server is not there any more to interrupt it
        ui.terminate(due)
    until(lambda: state(stack, NEXT) is JobState.WITHDRAWN, "its job was not withdrawn", 60)
