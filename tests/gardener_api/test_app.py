"""The sidecar as a process: how it begins, how it ends, and what is left when it is killed."""

import contextlib
import datetime as dt
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from sqlalchemy import text

from gardener_api import schema
from gardener_api.client import JobsAPIError, JobsClient
from gardener_api.database import open_engine, writing
from gardener_api.jobs import Ask, JobState
from gardener_api.store import JobStore

MakeAsk = Callable[..., Ask]
OpenStore = Callable[..., JobStore]
SECONDS = 60.0
LISTENING = re.compile(r"listening on .*'jobs': (\d+), 'status': (\d+), 'metrics': (\d+)")
PROGRAM = """
import sys
from gardener_api.app import serve
from gardener_api.config import GardenerConfig

url, timeout, port = sys.argv[1:]
source = {"bucket": "archive-mlab-oti", "experiment": "ndt", "datatype": "ndt7"}
config = {"start_date": "2024-03-01", "tracker": {"timeout": timeout}, "sources": [source]}
serve(
    config=GardenerConfig.model_validate(config),
    store_url=url,
    port=int(port),
    status_port=0,
    metrics_port=0,
)
"""


@dataclass
class Process:
    """A sidecar and where it listens."""

    popen: subprocess.Popen[bytes]
    log: Path
    jobs: str
    status: str
    metrics: str

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send it a signal; the exit code."""
        self.popen.send_signal(number)
        return self.popen.wait(SECONDS)


def started(url: str, log: Path, *, timeout: str = "5h", port: int = 0) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, url, timeout, str(port)],
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail("it did not happen in time")
        time.sleep(0.02)


Start = Callable[..., Process]


@pytest.fixture
def start(store_url: str, tmp_path: Path) -> Iterator[Start]:
    """Starts sidecars on the test's store."""
    running: list[subprocess.Popen[bytes]] = []

    def start_(*, timeout: str = "5h") -> Process:
        log = tmp_path / f"sidecar-{len(running)}.log"
        running.append(started(store_url, log, timeout=timeout))
        popen = running[-1]
        until(lambda: LISTENING.search(log.read_text()) or popen.poll() is not None)
        found = LISTENING.search(log.read_text())
        assert found, log.read_text()
        ports = [f"http://127.0.0.1:{port}" for port in found.groups()]
        return Process(popen, log, *ports)

    yield start_
    for popen in running:
        if popen.poll() is None:
            popen.kill()
        popen.wait(SECONDS)


def test_a_life(start: Start, store: JobStore, make_ask: MakeAsk, now: dt.datetime) -> None:
    store.enqueue([make_ask()], now=now)
    process = start()
    assert requests.get(f"{process.jobs}/alive", timeout=SECONDS).text == "alive\n"
    assert requests.get(f"{process.jobs}/ready", timeout=SECONDS).text == "ready\n"
    with JobsClient(process.jobs) as client:
        job = client.next()
        assert job is not None
        client.update(job.id, "parsing", "a.tgz")
    assert "a.tgz" in requests.get(f"{process.status}/jobs", timeout=SECONDS).text
    metrics = requests.get(f"{process.metrics}/metrics", timeout=SECONDS).text
    assert 'gardener_started_total{experiment="ndt",datatype="ndt7"} 1' in metrics
    assert process.end() == 0
    assert "Traceback" not in process.log.read_text()
    [kept] = store.jobs(limit=10)
    assert (kept.state, kept.detail) == (JobState.PARSING, "a.tgz")


def test_an_open_connection_does_not_hold_the_end_up(start: Start) -> None:
    process = start()
    with requests.Session() as session:
        assert session.get(f"{process.jobs}/alive", timeout=SECONDS).status_code == 200
        began = time.monotonic()
        assert process.end(signal.SIGINT) == 0
        assert time.monotonic() - began < 15, "it waited for an idle connection"


def test_leases_end_without_any_traffic(start: Start, store: JobStore, make_ask: MakeAsk) -> None:
    store.enqueue([make_ask()], now=dt.datetime.now(dt.UTC))
    process = start(timeout="200ms")
    with JobsClient(process.jobs) as client:
        assert client.next() is not None
    until(lambda: store.jobs(states={JobState.QUEUED}, limit=1))
    [job] = store.jobs(limit=1)
    assert job.attempt == 2
    until(lambda: "127.0.0.1 was silent" in process.log.read_text())


def test_a_port_that_is_taken(start: Start, store_url: str, tmp_path: Path) -> None:
    process = start()
    port = process.jobs.rpartition(":")[2]
    log = tmp_path / "second.log"
    second = started(store_url, log, port=int(port))
    assert second.wait(SECONDS) == 1
    assert f"127.0.0.1:{port} for jobs cannot be listened on" in log.read_text()
    assert requests.get(f"{process.jobs}/ready", timeout=SECONDS).status_code == 200


def test_a_store_that_cannot_be_used(store_url: str, tmp_path: Path) -> None:
    engine = writing(open_engine(store_url))
    schema.prepare(engine)
    with engine.begin() as connection:
        connection.execute(schema.version.update().values(version=99))
    engine.dispose()
    log = tmp_path / "sidecar.log"
    assert started(store_url, log).wait(SECONDS) == 1
    assert "written by a newer gardener" in log.read_text()
    assert "listening" not in log.read_text()


def test_not_ready_without_the_store(start: Start, store_url: str) -> None:
    process = start()
    engine = writing(open_engine(store_url))
    with engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE {schema.version.name} RENAME TO moved"))
    engine.dispose()
    response = requests.get(f"{process.jobs}/ready", timeout=SECONDS)
    assert response.status_code == 503
    assert response.text.startswith("not ready: the store: ")
    assert requests.get(f"{process.jobs}/alive", timeout=SECONDS).status_code == 200


def test_killed_under_load_it_has_lost_nothing_that_it_answered(
    start: Start, open_store: OpenStore, make_ask: MakeAsk, now: dt.datetime
) -> None:
    store = open_store()
    store.enqueue([make_ask(day) for day in range(1, 301)], now=now)
    random.seed(7)
    answered: dict[str, tuple[str, str]] = {}
    handed_out: list[str] = []
    for _ in range(3):
        process = start()
        threads = [
            threading.Thread(target=parser, args=(process.jobs, answered, handed_out))
            for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        before = len(answered)
        until(lambda: len(answered) >= before + 10)  # noqa: B023 - called at once
        time.sleep(random.uniform(0.0, 0.3))
        process.end(signal.SIGKILL)
        for thread in threads:
            thread.join(SECONDS)
    assert len(handed_out) == len(set(handed_out)), "a job was handed out twice"
    stored = {job.id: job for job in open_store().jobs(limit=1000)}
    order = ["init", "parsing", "postProcessing"]
    for job_id, (state, detail) in answered.items():
        job = stored[job_id]
        # A call that was not answered may have been done: later is right, earlier is a loss.
        assert order.index(job.state) >= order.index(state)
        if job.state == "parsing":
            assert int(job.detail) >= int(detail)


def parser(url: str, answered: dict[str, tuple[str, str]], handed_out: list[str]) -> None:
    """Take jobs until the sidecar is gone; remember what it said yes to."""
    with JobsClient(url, retries=0) as client, contextlib.suppress(JobsAPIError):
        while job := client.next():
            handed_out.append(job.id)
            answered[job.id] = ("init", "0")
            for number in range(1, 6):
                client.update(job.id, "parsing", str(number))
                answered[job.id] = ("parsing", str(number))
            client.update(job.id, "postProcessing")
            answered[job.id] = ("postProcessing", "")


OPEN = """
import datetime, sys
from gardener_api.store import JobStore
store = JobStore.open(sys.argv[1], lease=datetime.timedelta(hours=5), max_attempts=3)
now = datetime.datetime.now(datetime.UTC)
sys.stdin.read(1)
while jobs := store.lease(3, now=now):
    print(*(job.number for job in jobs), flush=True)
"""


def processes(url: str, count: int) -> list[subprocess.Popen[str]]:
    return [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONWARNINGS": "error"},
        )
        for _ in range(count)
    ]


def test_processes_that_open_an_empty_database_at_once(store_url: str) -> None:
    opened = processes(store_url, 4)
    outputs = [process.communicate("x", SECONDS)[0] for process in opened]
    assert [process.returncode for process in opened] == [0, 0, 0, 0]
    assert outputs == ["", "", "", ""]


def test_processes_hand_out_each_job_once(
    store_url: str, store: JobStore, make_ask: MakeAsk, now: dt.datetime
) -> None:
    store.enqueue([make_ask(day) for day in range(1, 201)], now=now)
    opened = processes(store_url, 3)
    for process in opened:
        assert process.stdin is not None
        process.stdin.write("x")
        process.stdin.flush()
    taken = [process.communicate(timeout=SECONDS)[0].split() for process in opened]
    numbers = [number for each in taken for number in each]
    assert len(numbers) == len(set(numbers)) == 200
    assert store.counts() == {JobState.INIT: 200}
