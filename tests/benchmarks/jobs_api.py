"""How quick the jobs API is on this machine: run by hand, asserts nothing.

    .venv/bin/python tests/benchmarks/jobs_api.py [--seconds 10] [--connections 64]
        [--database postgresql://...] [--server granian]

Without ``--database`` the store is SQLite in a file; granian must be installed. Each connection is
a parser's: it calls again as soon as it is answered, and of ``next`` each call takes a job.
The sidecar runs as a process, the load comes from another one over kept-alive connections of
127.0.0.1, and what the sidecar needs without any store (``/alive``) is measured in the same run as
the baseline. A call counts when its answer says that it is committed.
"""

import argparse
import asyncio
import contextlib
import datetime as dt
import json
import multiprocessing
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from urllib.parse import quote

import uvicorn
from sqlalchemy import func, select
from sqlalchemy.engine import make_url

from gardener_api import schema
from gardener_api.app import create_app, utc_now
from gardener_api.commits import GroupCommit
from gardener_api.database import open_engine
from gardener_api.jobs import Ask, JobKey, Priority
from gardener_api.store import JobStore

START_SECONDS = 30.0
WARM_UP_SECONDS = 1.0
FILLS = (0, 100_000)
LEASE = dt.timedelta(hours=5)
FIRST_DATE = dt.date(1900, 1, 1)
DATES = 40_000  # that one datatype has before the next one begins
SOURCE = "{bucket: benchmark, experiment: ndt, datatype: ndt7, target_datasets: {tmp: t, raw: r}}"
ALIVE = b"GET /alive HTTP/1.1\r\nHost: sidecar\r\n\r\n"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What one measurement found."""

    rate: float  # calls a second
    p50: float  # seconds
    p99: float
    refused: int


# -- the load: a process of its own


def post(target: str) -> bytes:
    """A call of the jobs API, on the wire."""
    return f"POST /v2/job/{target} HTTP/1.1\r\nHost: sidecar\r\nContent-Length: 0\r\n\r\n".encode()


class Connection(asyncio.Protocol):
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


async def connect(port: int, count: int) -> list[Connection]:
    """That many connections."""
    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(Connection, "127.0.0.1", port) for _ in range(count)]
    return [connection for _, connection in made]


async def take_jobs(connections: Iterable[Connection]) -> list[str]:
    """Have a job handed out to each connection; their IDs."""
    ids = []
    for connection in connections:
        code, body = await connection.call(post("next"))
        if code != 200:
            raise RuntimeError(f"next: {code} {body!r}")
        ids.append(json.loads(body)["ID"])
    return ids


async def load(port: int, kind: str, count: int, seconds: float) -> Cell:
    """Call on all connections at once, each when its last call was answered."""
    connections = await connect(port, count)
    times: list[float] = []
    refused = 0
    if kind == "update":
        ids = await take_jobs(connections)
        requests = [post(f"update?id={quote(i, safe='')}&state=parsing&detail=file") for i in ids]
    else:
        requests = [ALIVE if kind == "alive" else post("next")] * count
    counted = time.perf_counter() + min(WARM_UP_SECONDS, seconds / 4)
    end = counted + seconds

    async def work(connection: Connection, request: bytes) -> None:
        nonlocal refused
        while (begun := time.perf_counter()) < end:
            code, _ = await connection.call(request)
            answered = time.perf_counter()
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
    )


def run_load(port: int, kind: str, count: int, seconds: float) -> Cell:
    """The load, for a process of its own."""
    with asyncio.Runner(loop_factory=uvicorn.Config("").get_loop_factory()) as runner:
        return runner.run(load(port, kind, count, seconds))


# -- the sidecar


@contextlib.contextmanager
def sidecar(server: str, url: str, folder: Path) -> Iterator[int]:
    """The sidecar as a process; its port."""
    jobs, status, metrics = free_ports()
    if server == "granian":
        command = [sys.executable, __file__, f"--serve-granian={jobs}", f"--database={url}"]
    else:
        config = folder / "gardener.yml"
        config.write_text(f"start_date: {FIRST_DATE}\nsources: [{SOURCE}]\n")
        command = [
            sys.executable, "-m", "gardener_dagster.cli", "api", f"--port={jobs}",
            f"--status-port={status}", f"--metrics-port={metrics}", f"--database={url}",
            f"--config={config}",
        ]  # fmt: skip
    log = folder / "sidecar.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not ready(jobs):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"the sidecar did not start:\n{log.read_text()}")
            time.sleep(0.02)
        yield jobs
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def ready(port: int) -> bool:
    """Whether the sidecar is."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def free_ports() -> tuple[int, ...]:
    """Three ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        return tuple(listener.getsockname()[1] for listener in listeners)


def serve_granian(port: int, url: str) -> None:
    """The jobs port alone, on the other server; the sidecar's own is uvicorn."""
    from granian.constants import Interfaces
    from granian.server.embed import Server

    async def serve() -> None:
        store = JobStore.open(url, lease=LEASE, max_attempts=3)
        commits = GroupCommit(store, clock=utc_now)
        commits.start()
        app = create_app(store, commits)
        await Server(app, address="127.0.0.1", port=port, interface=Interfaces.ASGINL).serve()

    sys.setswitchinterval(0.0005)  # as the sidecar does
    with asyncio.Runner(loop_factory=uvicorn.Config("").get_loop_factory()) as runner:
        runner.run(serve())


# -- the store


def fill(url: str, wanted: int) -> int:
    """Bring the queue to at least that many jobs; how many are there."""
    engine = open_engine(url)
    queued = select(func.count()).where(schema.jobs.c.state == "queued")
    store = JobStore.open(url, lease=LEASE, max_attempts=3)
    with contextlib.closing(store), engine.connect() as connection:
        made = connection.execute(select(func.count()).select_from(schema.jobs)).scalar_one()
        before = connection.execute(queued).scalar_one()
        connection.rollback()
        store.enqueue([ask(made + i) for i in range(max(0, wanted - before))], now=utc_now())
        after: int = connection.execute(queued).scalar_one()
    engine.dispose()
    return after


def ask(number: int) -> Ask:
    """An ask for a job that was not asked for yet."""
    return Ask(
        key=JobKey(
            bucket="benchmark",
            experiment="ndt",
            datatype=f"type{number // DATES}",
            date=FIRST_DATE + dt.timedelta(days=number % DATES),
        ),
        requester="run:benchmark",
        run_id="benchmark",
        backfill_id=None,
        covers_tables=False,
        priority=Priority.BACKFILL,
        daily=False,
        filter="",
        tmp="t",
        raw="r",
        join="",
        rank=0,
        archives=1,
    )


def require_empty(url: str) -> None:
    """Refuse to fill a store that somebody uses."""
    JobStore.open(url, lease=LEASE, max_attempts=3).close()
    engine = open_engine(url)
    with engine.connect() as connection:
        made = connection.execute(select(func.count()).select_from(schema.jobs)).scalar_one()
    engine.dispose()
    if made:
        shown = make_url(url).render_as_string(hide_password=True)
        sys.exit(f"--database {shown}: {made} jobs are in it; expected an empty store")


# -- what is measured and shown


def describe(url: str) -> str:
    """The machine, the Python and the database."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):  # another system than Linux
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((x.partition(": ")[2] for x in lines if x.startswith("model name")), cpu)
    engine = open_engine(url)
    sqlite = engine.dialect.name == "sqlite"
    question = "SELECT sqlite_version()" if sqlite else "SELECT version()"
    with engine.connect() as connection:
        version = str(connection.exec_driver_sql(question).scalar_one())
    engine.dispose()
    database = f"SQLite {version}, WAL, synchronous=FULL" if sqlite else version
    return (
        f"{cpu}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before;"
        f" {platform.system()} {platform.release()}\n"
        f"Python {platform.python_version()}; {database}"
    )


def measure(url: str, server: str, folder: Path, seconds: float, connections: int) -> None:
    """Measure every cell and print it as soon as it is there."""
    context = multiprocessing.get_context("spawn")
    show(("call", "queued", "calls/s", "p50 ms", "p99 ms", "of /alive", "refused"))
    with ProcessPoolExecutor(1, mp_context=context) as pool, sidecar(server, url, folder) as port:

        def cell(kind: str) -> Cell:
            return pool.submit(run_load, port, kind, connections, seconds).result()

        baseline = cell("alive")
        show(row("/alive", "-", baseline, baseline))
        for wanted in FILLS:
            # Each connection takes one job first, to report on.
            queued = fill(url, wanted + connections) - connections
            found = cell("update")
            show(row("update", f"{queued:,}", found, baseline))
            # On an empty queue `next` commits nothing: it begins with what it can hand out.
            queued = fill(url, max(wanted, round(found.rate * (seconds + WARM_UP_SECONDS))))
            show(row("next", f"{queued:,} falling", cell("next"), baseline))


def row(call: str, queued: str, cell: Cell, baseline: Cell) -> Sequence[str]:
    """The numbers of a cell, for people."""
    return (
        call,
        queued,
        f"{cell.rate:,.0f}",
        f"{cell.p50 * 1000:.1f}",
        f"{cell.p99 * 1000:.1f}",
        f"{cell.rate / baseline.rate:.2f}",
        f"{cell.refused:,}",
    )


def show(cells: Sequence[str]) -> None:
    """Print a row of the table."""
    print(f"{cells[0]:<8}{cells[1]:>16}" + "".join(f"{x:>11}" for x in cells[2:]), flush=True)


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description="How quick the jobs API is on this machine.")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each cell")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--database", help="URL of an empty database; default: SQLite in a file")
    parser.add_argument("--server", choices=["uvicorn", "granian"], default="uvicorn")
    parser.add_argument("--serve-granian", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_granian:
        serve_granian(options.serve_granian, options.database)
        return
    with tempfile.TemporaryDirectory(prefix="gardener-benchmark-") as name:
        url = options.database or f"sqlite:///{name}/gardener.db"
        require_empty(url)
        print(describe(url))
        print(
            f"{options.server}, {options.connections} connections, {options.seconds:g} s a cell,"
            " load from one other process\n"
        )
        measure(url, options.server, Path(name), options.seconds, options.connections)


if __name__ == "__main__":
    main()
