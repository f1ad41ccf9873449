"""Thousands of connections that are no use to anybody: parsers' calls are answered all the same."""

import datetime as dt
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from job_requests import wanted
from sidecar_process import SidecarProcess

from gardener_api.client import JobsClient
from gardener_api.jobs.job import JobState
from gardener_api.store.store import JobStore

CONNECTIONS = 3_000
CALLS = 200
MEGABYTES = 150
"""That the sidecar may grow by; it grew by 50. A third of the connections has sent 20 kB each."""
SECONDS = 60.0
HALF_A_HEAD = b"POST /v2/job/heartbeat HTTP/1.1\r\nHost: sidecar\r\nX: " + b"x" * 20_000
HALF_A_FORM = (
    b"POST /v2/job/heartbeat HTTP/1.1\r\nHost: sidecar\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000000\r\n\r\n"
    b"detail=" + b"x" * 20_000
)


@pytest.fixture
def files() -> Iterator[int]:
    """How many connections this process can have, once it has taken all that it may."""
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    yield most - 200 if most != resource.RLIM_INFINITY else CONNECTIONS
    resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


@pytest.fixture
def database() -> str:
    """SQLite: what is tested is before any database."""
    return "sqlite"


def megabytes(sidecar: SidecarProcess) -> float:
    """What the sidecar has in memory."""
    status = Path(f"/proc/{sidecar.popen.pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) / 1024


def test_parsers_are_served_beside_thousands_of_useless_connections(
    sidecar: SidecarProcess, files: int
) -> None:
    store = JobStore.open(sidecar.url, lease=dt.timedelta(hours=5), max_attempts=3)
    store.enqueue([wanted(dt.date(2024, 3, 1))], now=dt.datetime.now(dt.UTC))
    before = megabytes(sidecar)
    ended = threading.Event()
    with closing(store), ExitStack() as stack, JobsClient(sidecar.jobs, retries=0) as parser:
        useless = [
            stack.enter_context(socket.create_connection(("127.0.0.1", sidecar.port), SECONDS))
            for _ in range(min(CONNECTIONS, files))
        ]
        for connection in useless[::6]:
            connection.sendall(HALF_A_HEAD)
        for connection in useless[1::6]:
            connection.sendall(HALF_A_FORM)

        def drip() -> None:
            while not ended.wait(0.05):
                for connection in useless[1::6]:
                    connection.sendall(b"x")

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            job = parser.next()
            assert job is not None
            for number in range(CALLS):
                parser.update(job.id, JobState.PARSING, str(number))
            grown = megabytes(sidecar) - before
            parser.update(job.id, JobState.POST_PROCESSING)
        finally:
            ended.set()
            dripping.join(SECONDS)
        [kept] = store.jobs(limit=2)
        assert kept.state is JobState.POST_PROCESSING
    assert grown < MEGABYTES
    assert "Traceback" not in sidecar.log
