"""The sidecar as a process: how it begins and how it ends; killing it is in ``concurrency``."""

import datetime as dt
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from postgres import postgresql_server
from sidecar_process import SidecarProcess
from sqlalchemy import text

from gardener_api.client import JobsClient
from gardener_api.jobs.job import JobRequest, JobState
from gardener_api.store import schema
from gardener_api.store.engine import open_engine, writing
from gardener_api.store.migrate import prepare
from gardener_api.store.store import JobStore

Wanted = Callable[..., JobRequest]
OpenStore = Callable[..., JobStore]
SECONDS = 60.0


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail("it did not happen in time")
        time.sleep(0.02)


Start = Callable[..., SidecarProcess]


@pytest.fixture
def make(store_url: str, tmp_path: Path) -> Iterator[Start]:
    """Makes sidecars on the test's store, which do not run yet."""
    made: list[SidecarProcess] = []

    def make_(**settings: Any) -> SidecarProcess:
        made.append(SidecarProcess(store_url, tmp_path / f"sidecar-{len(made)}", **settings))
        return made[-1]

    yield make_
    for process in made:
        process.close()


@pytest.fixture
def start(make: Start) -> Start:
    """Starts sidecars on the test's store."""

    def start_(**settings: Any) -> SidecarProcess:
        process = make(**settings)
        process.start()
        return process

    return start_


def test_a_life(start: Start, store: JobStore, wanted: Wanted, now: dt.datetime) -> None:
    store.enqueue([wanted()], now=now)
    process = start()
    assert requests.get(f"{process.jobs}/alive", timeout=SECONDS).text == "alive\n"
    assert requests.get(f"{process.jobs}/ready", timeout=SECONDS).text.startswith("ready\n")
    with JobsClient(process.jobs) as client:
        job = client.next()
        assert job is not None
        client.update(job.id, "parsing", "a.tgz")
    assert "a.tgz" in requests.get(f"{process.status}/jobs", timeout=SECONDS).text
    metrics = requests.get(f"{process.metrics}/metrics", timeout=SECONDS).text
    assert 'gardener_started_total{datatype="ndt7",experiment="ndt"} 1.0' in metrics
    assert process.end() == 0
    assert "Traceback" not in process.log
    [kept] = store.jobs(limit=10)
    assert (kept.state, kept.detail) == (JobState.PARSING, "a.tgz")


def test_an_open_connection_does_not_hold_the_end_up(start: Start) -> None:
    process = start()
    with requests.Session() as session:
        assert session.get(f"{process.jobs}/alive", timeout=SECONDS).status_code == 200
        began = time.monotonic()
        assert process.end(signal.SIGINT) == 0
        assert time.monotonic() - began < 15, "it waited for an idle connection"


def test_leases_end_without_any_traffic(start: Start, store: JobStore, wanted: Wanted) -> None:
    store.enqueue([wanted()], now=dt.datetime.now(dt.UTC))
    process = start(timeout="200ms")
    with JobsClient(process.jobs) as client:
        assert client.next() is not None
    until(lambda: store.jobs(states={JobState.QUEUED}, limit=1))
    [job] = store.jobs(limit=1)
    assert job.attempt == 2
    until(lambda: "127.0.0.1 was silent" in process.log)


def test_a_port_that_is_taken(start: Start, make: Start) -> None:
    process = start()
    second = make(port=process.port)
    second.launch()
    assert second.popen.wait(SECONDS) == 1
    assert f"127.0.0.1:{process.port} for jobs cannot be listened on" in second.log
    assert requests.get(f"{process.jobs}/ready", timeout=SECONDS).status_code == 200


def test_a_store_that_cannot_be_used(make: Start, store_url: str) -> None:
    engine = writing(open_engine(store_url))
    prepare(engine)
    with engine.begin() as connection:
        connection.execute(schema.version.update().values(version_num="9999"))
    engine.dispose()
    process = make()
    process.launch()
    assert process.popen.wait(SECONDS) == 1
    assert "written by a newer gardener" in process.log
    assert "listening" not in process.log


def test_not_ready_without_the_store(start: Start, store_url: str) -> None:
    process = start()
    engine = writing(open_engine(store_url))
    with engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE {schema.version.name} RENAME TO moved"))
    engine.dispose()
    response = requests.get(f"{process.jobs}/ready", timeout=SECONDS)
    assert response.status_code == 503
    assert response.text == "not ready: the store; the log says why\n"
    assert requests.get(f"{process.jobs}/alive", timeout=SECONDS).status_code == 200


def test_d42_nobody_is_told_where_the_store_is(tmp_path: Path) -> None:
    with postgresql_server("fsync=off") as server:
        process = SidecarProcess(server.url, tmp_path / "sidecar")
        try:
            process.start()
            server.stop()
            answers = [
                requests.get(f"{process.jobs}/ready", timeout=SECONDS),
                requests.post(f"{process.jobs}/v2/job/next", timeout=SECONDS),
                requests.get(f"{process.status}/", timeout=SECONDS),
                requests.get(f"{process.status}/api/jobs", timeout=SECONDS),
                requests.get(f"{process.metrics}/metrics", timeout=SECONDS),
            ]
            assert answers[0].text == "not ready: the store; the log says why\n"
            for answer in answers:
                assert answer.status_code == 503
                for told in (server.folder.name, "socket", "OperationalError", "psycopg", "SELECT"):
                    assert told not in answer.text, answer.url
            assert "not ready: the store: OperationalError: connection" in process.log
            # Probes come every few seconds; they do not fill the log.
            for _ in range(3):
                requests.get(f"{process.jobs}/ready", timeout=SECONDS)
            assert process.log.count("not ready: the store") == 1
            server.start()
            ready = requests.get(f"{process.jobs}/ready", timeout=SECONDS)
            assert ready.status_code == 200
            assert "ready again" in process.log
        finally:
            process.close()


OPEN = """
import datetime, sys
from gardener_api.store.store import JobStore
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
    store_url: str, store: JobStore, wanted: Wanted, now: dt.datetime
) -> None:
    store.enqueue([wanted(day) for day in range(1, 201)], now=now)
    opened = processes(store_url, 3)
    for process in opened:
        assert process.stdin is not None
        process.stdin.write("x")
        process.stdin.flush()
    taken = [process.communicate(timeout=SECONDS)[0].split() for process in opened]
    numbers = [number for each in taken for number in each]
    assert len(numbers) == len(set(numbers)) == 200
    assert store.counts() == {JobState.INIT: 200}
