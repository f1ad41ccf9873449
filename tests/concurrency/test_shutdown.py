"""A sidecar that is told to end answers what it has begun and refuses more; nothing is lost."""

import asyncio
import contextlib
import datetime as dt
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import urlencode

import pytest
from job_requests import wanted
from sidecar_process import SidecarProcess
from sqlalchemy import Connection, text

from gardener_api.jobs.job import Job, JobState
from gardener_api.store.engine import open_engine, writing
from gardener_api.store.store import JobStore

PARSERS = 32
JOBS = 400


def enqueue(url: str, count: int) -> None:
    first = dt.date(2000, 1, 1)
    asks = [wanted(first + dt.timedelta(days=i)) for i in range(count)]
    with opened(url) as store:
        store.enqueue(asks, now=dt.datetime.now(dt.UTC))


@contextlib.contextmanager
def opened(url: str) -> Iterator[JobStore]:
    with closing(JobStore.open(url, lease=dt.timedelta(hours=5), max_attempts=3)) as store:
        yield store


def jobs_of(url: str) -> dict[str, Job]:
    with opened(url) as store:
        return {job.id: job for job in store.jobs(limit=10 * JOBS)}


@dataclass
class Known:
    """What a parser was told yes to."""

    state: str
    detail: str


class Parser:
    """Reports on one job after another, over one connection, until it is closed."""

    def __init__(self, known: dict[str, Known]) -> None:
        self._known = known
        self.answered = 0
        self.refused: list[str] = []

    async def work(self, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with closing(writer), contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                job_id = json.loads(await self._call(reader, writer, "next"))["ID"]
                self._known[job_id] = Known("init", "")
                for number in range(20):
                    await self._update(reader, writer, job_id, "parsing", str(number))
                await self._update(reader, writer, job_id, "postProcessing", "done")

    async def _update(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        job_id: str,
        state: str,
        detail: str,
    ) -> None:
        form = urlencode({"id": job_id, "state": state, "detail": detail})
        await self._call(reader, writer, f"update?{form}")
        self._known[job_id] = Known(state, detail)

    async def _call(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str
    ) -> bytes:
        writer.write(
            f"POST /v2/job/{target} HTTP/1.1\r\nHost: s\r\nContent-Length: 0\r\n\r\n".encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        body = await reader.readexactly(length)
        if " 200 " not in head.partition("\r\n")[0]:
            self.refused.append(head)
            raise ConnectionError
        self.answered += 1
        return body


async def load_and_end(parsers: list[Parser], sidecar: SidecarProcess) -> int:
    async with asyncio.TaskGroup() as tasks:
        for parser in parsers:
            tasks.create_task(parser.work(sidecar.port))
        while sum(parser.answered for parser in parsers) < 20 * PARSERS:
            await asyncio.sleep(0.005)
        return await asyncio.to_thread(sidecar.end)


def test_sigterm_under_load_loses_nothing(sidecar: SidecarProcess) -> None:
    enqueue(sidecar.url, JOBS)
    known: dict[str, Known] = {}
    parsers = [Parser(known) for _ in range(PARSERS)]
    assert asyncio.run(load_and_end(parsers, sidecar)) == 0
    assert [parser.refused for parser in parsers if parser.refused] == []
    held = {i: job for i, job in jobs_of(sidecar.url).items() if job.state != JobState.QUEUED}
    assert len(known) >= PARSERS, "there was no load"
    # Equal, not at least: a call that was done and not answered would show as well.
    assert {i: Known(job.state, job.detail) for i, job in held.items()} == known
    assert "Traceback" not in sidecar.log


@contextlib.contextmanager
def locked(url: str) -> Iterator[Connection]:
    """Nobody else can write."""
    engine = writing(open_engine(url))
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("LOCK TABLE jobs IN SHARE MODE"))
        yield connection
    engine.dispose()


def test_an_open_call_is_answered_and_a_new_one_refused(sidecar: SidecarProcess) -> None:
    enqueue(sidecar.url, 1)
    codes: list[int] = []
    ended = threading.Thread(target=lambda: codes.append(sidecar.end()))
    with socket.create_connection(("127.0.0.1", sidecar.port), timeout=30) as caller:
        with locked(sidecar.url):
            caller.sendall(b"POST /v2/job/next HTTP/1.1\r\nHost: s\r\nContent-Length: 0\r\n\r\n")
            until(lambda: "1 calls wait" in ready(sidecar.port))
            ended.start()
            until(lambda: "ending" in sidecar.log)
            until(lambda: ready(sidecar.port) == "refused")
            assert codes == [], "it did not wait for the open call"
        assert caller.recv(4096).startswith(b"HTTP/1.1 200 ")
    ended.join(30)
    assert codes == [0]
    [job] = jobs_of(sidecar.url).values()
    assert job.state == JobState.INIT


def test_a_client_that_keeps_its_connection_loses_no_call(sidecar: SidecarProcess) -> None:
    """It is told that the connection ends, in an answer: a Go client repeats no POST."""
    enqueue(sidecar.url, 1)
    call = b"POST /v2/job/heartbeat?id=x HTTP/1.1\r\nHost: s\r\nContent-Length: 0\r\n\r\n"
    ended = threading.Thread(target=sidecar.end)
    with socket.create_connection(("127.0.0.1", sidecar.port), timeout=30) as caller:
        for number in range(10_000):
            caller.sendall(call)
            answer = caller.recv(4096)
            assert answer.startswith(b"HTTP/1.1 410 "), f"call {number} was not answered"
            if b"connection: close" in answer.lower():
                break
            if number == 10:
                ended.start()
            time.sleep(0.01)
        assert number > 10
    ended.join(30)


def test_a_store_that_does_not_answer_does_not_hold_the_end_up(sidecar: SidecarProcess) -> None:
    enqueue(sidecar.url, 1)
    assert sidecar.end() == 0
    sidecar.start("--shutdown-timeout=1")
    with socket.create_connection(("127.0.0.1", sidecar.port), timeout=30) as caller:
        with locked(sidecar.url):
            caller.sendall(b"POST /v2/job/next HTTP/1.1\r\nHost: s\r\nContent-Length: 0\r\n\r\n")
            until(lambda: "1 calls wait" in ready(sidecar.port))
            assert sidecar.end() == 0, "it ended, though nobody can write yet"
        assert b" 200 " not in caller.recv(4096)
    assert "the store did not answer; 1 calls were not done" in sidecar.log
    [job] = jobs_of(sidecar.url).values()
    assert job.state == JobState.QUEUED


def ready(port: int) -> str:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as caller:
            caller.sendall(b"GET /ready HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n")
            with caller.makefile("rb") as answer:
                return answer.read().decode()
    except ConnectionError:
        return "refused"


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not done():
        if time.monotonic() > deadline:
            pytest.fail("it did not happen in time")
        time.sleep(0.01)
