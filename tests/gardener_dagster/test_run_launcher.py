"""D29: the launcher knows whether a run's process lives. Real processes, real event logs."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterRunStatus
from dagster._core.events import EngineEventData
from dagster_instance import instance_at

from gardener_dagster.dagster_internals import WorkerStatus
from gardener_dagster.run_queue import GardenerRunLauncher

LAUNCHER = """
run_launcher: {module: gardener_dagster.run_queue, class: GardenerRunLauncher}
telemetry: {enabled: false}
"""
HERE = {"host": "localhost", "port": 4000}


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster.yaml").write_text(LAUNCHER, encoding="utf-8")
    with instance_at(tmp_path) as found:
        yield found


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as started:
        yield started
        started.kill()


def started_run(
    instance: dg.DagsterInstance, pid: int | None, code_server: dict[str, object] | None = None
) -> dg.DagsterRun:
    """A started run that has reported its process, as Dagster's `execute_run` reports it."""
    run = instance.run_storage.add_run(
        dg.DagsterRun(
            job_name="__ASSET_JOB",
            status=DagsterRunStatus.STARTED,
            tags={".dagster/grpc_info": json.dumps(code_server or HERE)},
        )
    )
    instance.report_engine_event("Launching", run)
    if pid is not None:
        instance.report_engine_event("Started process", run, EngineEventData.in_process(pid))
    return run


def health(instance: dg.DagsterInstance, run: dg.DagsterRun) -> tuple[WorkerStatus, str]:
    launcher = instance.run_launcher
    assert isinstance(launcher, GardenerRunLauncher)
    assert launcher.supports_check_run_worker_health
    found = launcher.check_run_worker_health(run)
    return found.status, found.msg or ""


def test_d29_a_run_is_as_alive_as_its_process(
    instance: dg.DagsterInstance, process: subprocess.Popen[bytes]
) -> None:
    run = started_run(instance, process.pid)
    assert health(instance, run)[0] is WorkerStatus.RUNNING
    process.kill()
    # A zombie until somebody waits for it, as the code server may not.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert health(instance, run)[0] is WorkerStatus.FAILED
    process.wait()
    status, why = health(instance, run)
    assert status is WorkerStatus.FAILED
    assert f"process {process.pid} of the run is gone" in why


def test_d29_a_process_that_stands_still_is_alive(
    instance: dg.DagsterInstance, process: subprocess.Popen[bytes]
) -> None:
    run = started_run(instance, process.pid)
    process.send_signal(signal.SIGSTOP)
    assert health(instance, run)[0] is WorkerStatus.RUNNING


def test_d29_a_later_process_with_the_same_id_is_another(
    instance: dg.DagsterInstance,
    process: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a restart of the machine the low IDs are all taken again."""
    with monkeypatch.context() as patch:
        patch.setattr("time.time", lambda: 1_700_000_000.0)
        run = started_run(instance, process.pid)
    assert health(instance, run)[0] is WorkerStatus.FAILED


@pytest.mark.parametrize(
    ("code_server", "pid", "status"),
    [
        ({"host": "code-server.other.example", "port": 4000}, 2**22 + 1, WorkerStatus.RUNNING),
        (HERE, None, WorkerStatus.RUNNING),
        (HERE, 2**22 + 1, WorkerStatus.FAILED),
        ({"host": "localhost", "socket": "/tmp/s"}, 2**22 + 1, WorkerStatus.FAILED),  # noqa: S108
    ],
    ids=["another host", "no process named", "this host", "a socket of this host"],
)
def test_d29_what_is_not_known_is_not_failed(
    instance: dg.DagsterInstance,
    code_server: dict[str, object],
    pid: int | None,
    status: WorkerStatus,
) -> None:
    assert health(instance, started_run(instance, pid, code_server))[0] is status
