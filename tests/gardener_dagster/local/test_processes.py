import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from gardener_dagster.local.processes import Part, PartFailedError, Processes

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
    with Processes([part(tmp_path, "a", STUBBORN)]) as processes:
        processes.start()
        [a] = processes.parts
        while not (said := a.last_lines()):
            processes.check()
        child = int(said[0])
        assert is_running(child)
    assert not is_running(child)


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
from gardener_dagster.local.processes import Part, Processes, terminating

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
        [sys.executable, "-m", "gardener_dagster.cli", *arguments],
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
