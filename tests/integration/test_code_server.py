"""A code server that is lost, alone or with its runs, and runs that nobody interrupts."""

import datetime as dt
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from dagster_instance import instance_at
from dagster_ui import CodeServerUnreachable, DagsterUI
from stack_client import StackClient
from waiting import until

from gardener_api.jobs.job import JobState
from gardener_dagster.automation.sensor_inputs.dagster_runs import AUTO_RETRY_TAG
from gardener_dagster.local.demo.upload import upload_archives
from gardener_dagster.planning.due_tables import job_key

PARSED = ("parsed", "ndt", "annotation2")
FORCED, ORPHANED, *LOST = DATES = tuple(dt.date(2024, 9, day) for day in range(1, 9))
NOTICED_SECONDS = 120.0  # a minute on a machine that does nothing else


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
    """A run that waits for a parser, and its process; a person ends it."""
    run_id = ui.launch([PARSED], date, date)
    until(lambda: state(stack, date) is JobState.QUEUED, "it does not ask")
    pid = ui.process_of(run_id)
    yield run_id, pid
    until(lambda: state(stack, date) is JobState.WITHDRAWN, "its job was not withdrawn", 60)
    until(lambda: not is_alive(pid), "its process waits on", 60)


def is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def looks(stack: StackClient, run_id: str) -> int:
    """How often run monitoring has looked at the run."""
    log = stack.processes.part("daemon").log.read_text(encoding="utf-8")
    return log.count(f"Checking run {run_id}")


def kill_code_server(stack: StackClient, *, spare: int = 0) -> None:
    """Kills the code server and what it has started, but for one process."""
    part = stack.processes.part("code server")
    assert part.process is not None
    server = psutil.Process(part.process.pid)
    for process in [server, *server.children(recursive=True)]:
        if process.pid != spare:
            process.kill()
    part.process.wait()
    part.process = None


def start_code_server(stack: StackClient) -> None:
    stack.processes.start("code server")
    stack.processes.wait_until_ready("code server")


def launch(stack: StackClient, ui: DagsterUI, date: dt.date) -> str:
    """Start a run that asks for the date and waits; run monitoring has looked at it."""
    runs = []

    def launched() -> bool:
        with suppress(CodeServerUnreachable):
            runs.append(ui.launch([PARSED], date, date))
        return bool(runs)

    until(launched, "the webserver does not reach the code server")
    until(lambda: state(stack, date) is JobState.QUEUED, "it does not ask")
    until(lambda: looks(stack, runs[0]), "nobody looks whether it lives")
    return runs[0]


def lose_with_code_server(stack: StackClient, ui: DagsterUI, run_id: str) -> bool:
    """Kill a run and the code server, and start the code server again.

    Returns:
        Whether it was back before run monitoring looked at the run. Else Dagster gives the retry
        up, since no code server answers.
    """
    before = looks(stack, run_id)
    until(lambda: looks(stack, run_id) > before, "nobody looks whether it lives")
    kill_code_server(stack)
    start_code_server(stack)
    is_back = looks(stack, run_id) == before + 1
    until(lambda: ui.status(run_id) == "FAILURE", "it stays started", NOTICED_SECONDS)
    return is_back


def test_a_run_that_is_over_for_dagster_alone_withdraws(stack: StackClient, ui: DagsterUI) -> None:
    with waiting_run(stack, ui, FORCED) as (run_id, _):
        ui.terminate(run_id, force=True)


def test_d29_a_run_outlives_its_code_server(stack: StackClient, ui: DagsterUI) -> None:
    with waiting_run(stack, ui, ORPHANED) as (run_id, pid):
        kill_code_server(stack, spare=pid)
        before = looks(stack, run_id)
        until(lambda: looks(stack, run_id) >= before + 2, "nobody looks whether it lives")
        assert ui.status(run_id) == "STARTED"
        assert is_alive(pid)
        start_code_server(stack)
        # This server did not start it, and cannot reach it; the run sees that it is cancelled.
        until(
            lambda: ui.ask_to_terminate(run_id) == "TerminateRunFailure",
            "the webserver does not reach the new code server",
            60,
        )
    until(lambda: ui.status(run_id) == "CANCELED", "it does not end", 60)


def test_d29_runs_that_are_killed_with_their_code_server_are_noticed_and_retried(
    stack: StackClient, ui: DagsterUI
) -> None:
    for date in LOST:
        run_id = launch(stack, ui, date)
        if lose_with_code_server(stack, ui, run_id):
            break
    else:
        pytest.fail("the code server never was back before run monitoring looked")
    assert any("of the run is gone" in line for line in ui.log(run_id))
    assert state(stack, date) is JobState.QUEUED, "interrupted is not cancelled"
    with instance_at(stack.settings.home / "dagster") as instance:

        def retry() -> str:
            run = instance.get_run_by_id(run_id)
            return run.tags.get(AUTO_RETRY_TAG, "") if run else ""

        until(retry, "it is not retried")
        repeated = retry()
    until(lambda: ui.status(repeated) == "STARTED", "its retry does not start")
    ui.terminate(repeated)
    until(lambda: state(stack, date) is JobState.WITHDRAWN, "its job was not withdrawn", 60)
