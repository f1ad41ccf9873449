"""``gardener daemon`` as the two processes that it is, without a code server."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dagster_instance import instance_at
from waiting import until

from gardener_api.jobs import Priority
from gardener_dagster.run_queue import NICENESS
from gardener_dagster.status_daemon import StatusDaemon

ROOT = Path(__file__).parent.parent.parent
BACKFILL = "BACKFILL"


@contextmanager
def running(home: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """The command; what it says is in ``log``."""
    (home / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())
    (home / "workspace.yaml").write_text(
        "load_from: [{grpc_server: {host: 127.0.0.1, port: 9, location_name: nobody}}]"
    )
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gardener_dagster.cli", "daemon"],
            cwd=home,
            env=dict(os.environ) | {"DAGSTER_HOME": str(home)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if not is_gone(process.pid):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def test_backfills_have_a_process_apart_and_each_daemon_runs_once(tmp_path: Path) -> None:
    with running(tmp_path) as process, instance_at(tmp_path) as instance:
        wanted = {*instance.get_required_daemon_types(), StatusDaemon.daemon_type()}
        until(lambda: set(instance.get_daemon_heartbeats()) == wanted, "not all live", 60)
        ids = {kind: beat.daemon_id for kind, beat in instance.get_daemon_heartbeats().items()}
        apart = child_of(process.pid)
        assert len(set(ids.values())) == 2
        of_backfills = {kind for kind, of in ids.items() if of == ids[BACKFILL]}
        assert of_backfills == {BACKFILL, StatusDaemon.daemon_type()}
        # In the order in which runs share the processor.
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == NICENESS[Priority.DAILY]
        assert os.getpriority(os.PRIO_PROCESS, apart) == NICENESS[Priority.BACKFILL]
        process.terminate()
        assert process.wait(60) == 0, (tmp_path / "log").read_text()[-3000:]
        until(lambda: is_gone(process.pid), "a process is left", 10)


def test_where_backfills_end_all_do(tmp_path: Path) -> None:
    with running(tmp_path) as process, instance_at(tmp_path) as instance:
        until(lambda: BACKFILL in instance.get_daemon_heartbeats(), "it does not live", 60)
        os.kill(child_of(process.pid), signal.SIGKILL)
        assert process.wait(60) == 1
        assert "the daemon of backfills ended with code -9" in (tmp_path / "log").read_text()


def test_backfills_are_killed_with_the_rest(tmp_path: Path) -> None:
    with running(tmp_path) as process, instance_at(tmp_path) as instance:
        until(lambda: BACKFILL in instance.get_daemon_heartbeats(), "it does not live", 60)
        process.kill()
        process.wait()
        until(lambda: is_gone(process.pid), "it goes on", 10)


def test_a_workspace_that_is_not_there(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gardener_dagster.cli", "daemon", "-w", "nowhere.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "'nowhere.yaml' does not exist" in done.stderr


def child_of(parent: int) -> int:
    """Of its children, the one that has children's work: the other tracks shared memory."""
    [child] = [
        int(folder.name)
        for folder in Path("/proc").iterdir()
        if folder.name.isdecimal() and is_backfills(folder, parent)
    ]
    return child


def is_backfills(folder: Path, parent: int) -> bool:
    try:
        stat = (folder / "stat").read_text().rpartition(")")[2].split()
        command = (folder / "cmdline").read_text()
    except OSError:  # it has ended meanwhile
        return False
    return int(stat[1]) == parent and "spawn_main" in command
