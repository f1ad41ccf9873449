import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from waiting import until

from gardener_dagster.local.stack.home import HomeError, claim_home
from gardener_dagster.local.stack.processes import Part, PartFailedError, Processes

SLEEP = "import time; time.sleep(60)"
# Starts a process of its own, tells its id, and ignores being asked to end.
STUBBORN = """
import signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


def part(tmp_path: Path, name: str, code: str, alive_url: str = "") -> Part:
    return Part(
        name=name,
        command=[sys.executable, "-c", code],
        environment=dict(os.environ),
        log=tmp_path / f"{name}.log",
        alive_url=alive_url,
    )


def is_running(pid: int) -> bool:
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()
    return bool(state) and not state.startswith("Z")


def test_all_end_when_it_is_left(tmp_path: Path) -> None:
    with Processes([part(tmp_path, "a", SLEEP), part(tmp_path, "b", SLEEP)]) as processes:
        processes.start()
        processes.wait_until_ready()
        pids = [p.process.pid for p in processes.parts if p.process]
        assert all(map(is_running, pids))
    assert len(pids) == 2
    assert not any(map(is_running, pids))


def test_what_a_part_started_ends_with_it(tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    with Processes([part(tmp_path, "a", STUBBORN)]) as processes:
        processes.start()
        [a] = processes.parts
        while not (said := a.last_lines()):
            processes.check()
        child = int(said[0])
        assert is_running(child)
    assert not is_running(child)
    assert signal.getsignal(signal.SIGTERM) is handler  # what starts next would inherit another


def test_a_crash_is_told_with_the_last_lines_and_the_others_end(tmp_path: Path) -> None:
    code = "print('line before'); raise SystemExit('out of petrol')"
    parts = [part(tmp_path, "a", SLEEP), part(tmp_path, "b", code, "tcp://127.0.0.1:1")]
    with pytest.raises(PartFailedError) as caught, Processes(parts) as processes:  # noqa: PT012
        processes.start()
        processes.wait_until_ready(timeout=30)
    message = str(caught.value)
    assert "b ended with exit code 1" in message
    assert "line before" in message
    assert "out of petrol" in message
    assert parts[0].process is not None
    assert not is_running(parts[0].process.pid)


def test_a_part_that_does_not_answer_in_time_is_named(tmp_path: Path) -> None:
    silent = part(tmp_path, "silent", SLEEP, "http://127.0.0.1:1/alive")
    with Processes([silent]) as processes:
        processes.start()
        with pytest.raises(PartFailedError, match="silent did not answer within 0 s"):
            processes.wait_until_ready(timeout=0.3)


SUPERVISOR = """
import os, sys, time
from pathlib import Path
from gardener_dagster.local.stack.processes import Part, Processes, terminating

deaf = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    " print('up', flush=True); time.sleep(60)"
)
command = [sys.executable, "-c", deaf]
part = Part(name="deaf", command=command, environment=dict(os.environ), log=Path(sys.argv[1]))
with terminating(), Processes([part]) as processes:
    processes.start()
    while not part.last_lines():
        processes.check()
    print(part.process.pid, flush=True)
    time.sleep(60)
"""


def test_interrupted_twice_it_leaves_nothing_behind(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(tmp_path / "deaf.log")],
        stdout=subprocess.PIPE,
        text=True,
    ) as supervisor:
        assert supervisor.stdout is not None
        child = int(supervisor.stdout.readline())
        supervisor.terminate()
        with pytest.raises(subprocess.TimeoutExpired):  # it waits for the deaf one
            supervisor.wait(1)
        supervisor.terminate()
        supervisor.wait(5)
    assert not is_running(child)


def last_exit(arguments: Sequence[str], *, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gardener_dagster.cli.main", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["demo", "--archive", "."], "--archive and --dates go together"),
        (["demo", "--archive", ".", "--dates", "2024-03-02:2024-03-01"], "the earlier date first"),
        (["demo", "--archive", ".", "--dates", "soon"], "expected dates like"),
        (["dev", "--config", "none.yml"], "none.yml: 1 error(s)"),
    ],
)
def test_a_bad_command_line_says_what_was_expected(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "gardener.yml").write_text(
        "start_date: 2024-01-01\nsources: [{bucket: abc, experiment: ndt, datatype: ndt7}]",
        encoding="utf-8",
    )
    result = last_exit(arguments, cwd=tmp_path)
    assert result.returncode != 0
    assert said in result.stderr


# -- a supervisor that is killed

KILLED = """
import os, sys, time
from pathlib import Path
from gardener_dagster.local.stack.home import claim_home
from gardener_dagster.local.stack.processes import Part, Processes

# Starts a process in a session of its own, as a run may be; both ignore SIGTERM.
deaf = '''
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(
    [sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True
)
print(os.getpid(), child.pid, flush=True)
time.sleep(60)
'''
with claim_home(Path(sys.argv[1])) as home:
    part = Part(
        name="deaf",
        command=[sys.executable, "-c", deaf],
        environment=dict(os.environ),
        log=home.folder / "deaf.log",
    )
    with Processes([part], keep_open=[home.lock]) as processes:
        processes.start()
        while not part.last_lines():
            processes.check()
        print(part.last_lines()[0], flush=True)
        time.sleep(60)
"""


def killed_supervisor(home: Path) -> list[int]:
    """A supervisor is killed with SIGKILL; the processes that it has left, at any depth."""
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(home)], stdout=subprocess.PIPE, text=True
    ) as supervisor:
        assert supervisor.stdout is not None
        left = [int(pid) for pid in supervisor.stdout.readline().split()]
        assert len(left) == 2
        assert all(map(is_running, left))
        supervisor.kill()
    return left


def test_what_a_killed_supervisor_started_ends(tmp_path: Path) -> None:
    left = killed_supervisor(tmp_path / "home")
    until(lambda: not any(map(is_running, left)), "they stay", 30)


def test_the_next_stack_gets_the_home_once_the_old_processes_have_ended(tmp_path: Path) -> None:
    left = killed_supervisor(tmp_path / "home")
    with claim_home(tmp_path / "home") as home:
        assert home.folder == tmp_path / "home"
        assert not any(map(is_running, left))


def test_beside_a_living_stack_another_folder_is_taken(tmp_path: Path) -> None:
    with claim_home(tmp_path / "home"), claim_home(tmp_path / "home") as second:
        assert second.folder == tmp_path / "home" / "beside-2"


def test_kill_all_leaves_no_process_at_any_depth(tmp_path: Path) -> None:
    code = KILLED.split("'''")[1]
    with Processes([part(tmp_path, "a", code), part(tmp_path, "b", SLEEP)]) as processes:
        processes.start()
        a, b = processes.parts
        while not (said := a.last_lines()):
            processes.check()
        assert b.process is not None
        pids = [*map(int, said[0].split()), b.process.pid]
        assert all(map(is_running, pids))
        processes.kill_all()
        assert not any(map(is_running, pids))
        assert (a.exit_code, b.exit_code) == (-signal.SIGKILL, -signal.SIGKILL)


def test_a_home_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("", encoding="utf-8")
    with pytest.raises(HomeError, match="file cannot hold the stack's data"), claim_home(file):
        pass
