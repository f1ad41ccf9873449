"""Load on a jobs API over kept-alive connections, from one process; times of the answers."""

import asyncio
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast
from urllib.parse import quote

import uvloop

WARM_UP_SECONDS = 1.0
ALIVE = b"GET /alive HTTP/1.1\r\nHost: sidecar\r\n\r\n"

Kind = Literal["alive", "update", "next"]
"""``update``: each connection takes a job first, then reports on it again and again."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What one measurement found."""

    rate: float  # answers with code 200 a second
    p50: float  # seconds
    p99: float
    refused: int  # answers with another code
    answers: int  # of any code, warm-up included


def run_load(port: int, kind: Kind, connections: int, seconds: float) -> Cell:
    """Call on all connections at once, each again as soon as its last call was answered.

    A call counts if its answer comes within the measured time and has code 200: then it is
    committed.

    Args:
        port: Of the jobs API, on 127.0.0.1.
        kind: What is called.
        connections: How many.
        seconds: The measured time, after a warm-up.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_load(port, kind, connections, seconds))


async def _load(port: int, kind: Kind, count: int, seconds: float) -> Cell:
    connections = await _connect(port, count)
    requests = await _requests(kind, connections)
    times: list[float] = []
    refused = answers = 0
    counted = time.perf_counter() + min(WARM_UP_SECONDS, seconds / 4)
    end = counted + seconds

    async def work(connection: "_Connection", request: bytes) -> None:
        nonlocal refused, answers
        while (begun := time.perf_counter()) < end:
            code, _ = await connection.call(request)
            answered = time.perf_counter()
            answers += 1
            if not counted <= answered < end:
                continue
            if code == 200:
                times.append(answered - begun)
            else:
                refused += 1

    async with asyncio.TaskGroup() as tasks:
        for connection, request in zip(connections, requests, strict=True):
            tasks.create_task(work(connection, request))
    for connection in connections:
        connection.close()
    times.sort()
    return Cell(
        rate=len(times) / seconds,
        p50=times[len(times) // 2] if times else float("nan"),
        p99=times[len(times) * 99 // 100] if times else float("nan"),
        refused=refused,
        answers=answers,
    )


async def _requests(kind: Kind, connections: list["_Connection"]) -> list[bytes]:
    """What each connection sends, again and again."""
    if kind == "alive":
        return [ALIVE] * len(connections)
    if kind == "next":
        return [_post("next")] * len(connections)
    ids = await _take_jobs(connections)
    return [_post(f"update?id={quote(i, safe='')}&state=parsing&detail=file") for i in ids]


def _post(target: str) -> bytes:
    return f"POST /v2/job/{target} HTTP/1.1\r\nHost: sidecar\r\nContent-Length: 0\r\n\r\n".encode()


async def _take_jobs(connections: Iterable["_Connection"]) -> list[str]:
    ids = []
    for connection in connections:
        code, body = await connection.call(_post("next"))
        if code != 200:
            raise RuntimeError(f"next: {code} {body!r}")
        ids.append(json.loads(body)["ID"])
    return ids


async def _connect(port: int, count: int) -> list["_Connection"]:
    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(_Connection, "127.0.0.1", port) for _ in range(count)]
    return [connection for _, connection in made]


class _Connection(asyncio.Protocol):
    """One connection that is kept alive, and the one call that is under way on it.

    Streams would cost the load generator more than this, on cores that the sidecar needs.
    """

    def __init__(self) -> None:
        self._received = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has the methods alone

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        lowered = head.lower()
        at = lowered.index(b"content-length:") + len(b"content-length:")
        if len(body) < int(lowered[at:].split(b"\r\n", 1)[0]):
            return
        self._received = b""
        assert self._answer is not None
        self._answer.set_result((int(head[9:12]), body))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("the sidecar hung up"))

    async def call(self, request: bytes) -> tuple[int, bytes]:
        """Code and body of the answer."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
