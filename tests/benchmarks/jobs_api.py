"""How fast the jobs API is on this machine: run by hand, asserts nothing.

    PYTHONPATH=tests/support .venv/bin/python tests/benchmarks/jobs_api.py [--postgresql]
        [--against DIR] [--rounds 2] [--seconds 10] [--connections 64] [--queued 0 100000]

With ``--against`` the sidecar of another checkout is measured in turns with this one's (A B A B),
and the ratios are printed; both run on this environment's packages. Each turn has a store of its
own, in SQLite or, with ``--postgresql``, in a new database of a server that is started for it.

The sidecar runs as a process. The load comes from one other process over kept-alive connections of
127.0.0.1, each a parser's: it calls again as soon as it is answered. What the sidecar does without
any store (``/alive``) is the baseline. CPU is the sidecar's own, user and system, for each call: on
a busy machine it tells more than the rate does. A call counts when its answer says that it is
committed; of ``next`` each takes a job, so the queue falls. The queue is filled by SQL.
"""

import argparse
import contextlib
import datetime as dt
import multiprocessing
import os
import platform
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
from http_load import WARM_UP_SECONDS, Cell, Kind, run_load
from postgres import postgresql
from sqlalchemy import Connection, MetaData, Table, create_engine, func, inspect, make_url, select
from sqlalchemy.engine import Engine

ROOT = Path(__file__).parent.parent.parent
START_SECONDS = 60.0
FIRST_DATE = dt.date(1900, 1, 1)
DATES = 40_000  # that one datatype has before the next one begins
CONFIG = """\
start_date: 2009-02-18
sources:
- bucket: benchmark
  experiment: ndt
  datatype: ndt7
  target_datasets: {tmp: t, raw: r}
"""
API = """\
import importlib, importlib.util, sys
package = importlib.util.find_spec("gardener_dagster.cli").submodule_search_locations
module = importlib.import_module("gardener_dagster.cli" + (".main" if package else ""))
sys.argv[0] = "gardener"
module.main()
"""  # an older checkout has one module
CHUNK = 10_000

Row = tuple[str, str]
"""What is called, and how many jobs are queued."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one measurement found."""

    load: Cell
    cpu: float  # seconds of the sidecar's for each call


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    seconds: float
    connections: int
    queued: Sequence[int]


# -- the sidecar


@contextlib.contextmanager
def running_sidecar(checkout: Path, url: str, folder: Path) -> Iterator[tuple[psutil.Process, int]]:
    """The sidecar of a checkout as a process, and its port."""
    jobs, status, metrics = free_ports()
    config = folder / "gardener.yml"
    config.write_text(CONFIG)
    command = [
        sys.executable, "-c", API, "api", f"--port={jobs}", f"--status-port={status}",
        f"--metrics-port={metrics}", f"--database={url}", f"--config={config}",
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    log = folder / "sidecar.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=stream, env=environment, cwd=checkout
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not ready(jobs):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"the sidecar of {checkout} did not start:\n{log.read_text()}")
            time.sleep(0.02)
        yield psutil.Process(process.pid), jobs
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


# -- the store, of whatever version: what is known of it is the table of jobs


def fill(engine: Engine, wanted: int) -> int:
    """Bring the queue to at least that many jobs.

    Returns:
        How many are queued then.
    """
    with engine.begin() as connection:
        jobs = jobs_table(connection)
        made = connection.execute(select(func.count()).select_from(jobs)).scalar_one()
        queued = count_queued(connection, jobs)
        numbers = range(made, made + max(0, wanted - queued))
        for first in range(numbers.start, numbers.stop, CHUNK):
            rows = [job_row(number) for number in numbers[first - made : first - made + CHUNK]]
            connection.execute(jobs.insert(), rows)
        return count_queued(connection, jobs)


def jobs_table(connection: Connection) -> Table:
    """The table of jobs that the sidecar has made, in whatever schema."""
    inspector = inspect(connection)
    names = inspector.get_schema_names()
    found = next(name for name in names if inspector.has_table("jobs", schema=name))
    return Table("jobs", MetaData(), schema=found, autoload_with=connection)


def count_queued(connection: Connection, jobs: Table) -> int:
    """How many jobs are queued."""
    query = select(func.count()).select_from(jobs).where(jobs.c.state == "queued")
    return int(connection.execute(query).scalar_one())


def job_row(number: int) -> dict[str, object]:
    """A queued job that was not asked for yet."""
    datatype, date = f"type{number // DATES}", FIRST_DATE + dt.timedelta(days=number % DATES)
    key = f"benchmark/ndt/{datatype}/{date:%Y%m%d}"
    now = time.time_ns() // 1000
    return {
        "number": number + 1, "bucket": "benchmark", "experiment": "ndt", "datatype": datatype,
        "date": date, "generation": 1, "attempt": 1, "state": "queued", "priority": 1, "rank": 0,
        "daily": False, "filter": "", "tmp": "t", "raw": "r", "join": "", "archives": 1,
        "detail": "", "error": "", "parser": "", "run_id": "benchmark", "created": now,
        "entered": now, "key": key, "wire_id": key,
    }  # fmt: skip


# -- what is measured and shown


def measure_turn(
    checkout: Path, url: str, folder: Path, options: Options
) -> Iterator[tuple[Row, Measured]]:
    """Measure the sidecar of a checkout on a new store, cell by cell."""
    driver = make_url(url)
    if driver.get_backend_name() == "postgresql":
        driver = driver.set(drivername="postgresql+psycopg")
    engine = create_engine(driver)
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(1, mp_context=context) as pool,
        running_sidecar(checkout, url, folder) as (process, port),
    ):

        def cell(kind: Kind) -> Measured:
            before = process.cpu_times()
            arguments = (port, kind, options.connections, options.seconds)
            load = pool.submit(run_load, *arguments).result()
            after = process.cpu_times()
            used = after.user + after.system - before.user - before.system
            return Measured(load=load, cpu=used / load.answers)

        yield ("/alive", "-"), cell("alive")
        for wanted in options.queued:
            # Each connection takes one job first, to report on.
            fill(engine, wanted + options.connections)
            found = cell("update")
            yield ("update", f"{wanted:,}"), found
            # On an empty queue `next` commits nothing: it begins with what it can hand out.
            enough = 2 * round(found.load.rate * (options.seconds + WARM_UP_SECONDS))
            fill(engine, max(wanted, enough))
            yield ("next", f"{wanted:,}"), cell("next")
    engine.dispose()


@contextlib.contextmanager
def databases(*, on_postgresql: bool, folder: Path) -> Iterator[Iterator[str]]:
    """URLs of new databases, without an end."""
    if not on_postgresql:
        yield (f"sqlite:///{folder}/gardener-{n}.db" for n in range(sys.maxsize))
        return
    with postgresql() as url:
        server = create_engine(
            make_url(url).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
        )

        def make() -> Iterator[str]:
            for n in range(sys.maxsize):
                with server.connect() as connection:
                    connection.exec_driver_sql(f"CREATE DATABASE turn_{n}")
                yield make_url(url).set(database=f"turn_{n}").render_as_string(hide_password=False)

        yield make()
        server.dispose()


def describe(*, on_postgresql: bool) -> str:
    """The machine, the Python and the database."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):  # another system than Linux
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((x.partition(": ")[2] for x in lines if x.startswith("model name")), cpu)
    sqlite = f"SQLite {sqlite3.sqlite_version}, WAL, synchronous=FULL"
    return (
        f"{cpu}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before;"
        f" {platform.system()} {platform.release()}; Python {platform.python_version()};"
        f" {'PostgreSQL, fsync=on' if on_postgresql else sqlite}"
    )


def print_row(name: str, row: Row, found: Measured, baseline: float) -> None:
    """Print the numbers of a cell."""
    load = found.load
    print(
        f"{name:<8}{row[0]:<8}{row[1]:>9}{load.rate:>11,.0f}{load.p50 * 1000:>9.1f}"
        f"{load.p99 * 1000:>9.1f}{found.cpu * 1e6:>9.0f}{load.rate / baseline:>11.2f}"
        f"{load.refused:>9,}",
        flush=True,
    )


def print_ratios(cells: Mapping[str, Mapping[Row, Sequence[Measured]]]) -> None:
    """Print the means of all turns, and what this checkout's are divided by the other's."""
    columns: dict[str, Callable[[Measured], float]] = {
        "calls/s": lambda found: found.load.rate,
        "p50 ms": lambda found: found.load.p50 * 1000,
        "p99 ms": lambda found: found.load.p99 * 1000,
        "CPU us": lambda found: found.cpu * 1e6,
    }
    print(f"\nmean: this, the other, ratio{''.join(f'{name:>22}' for name in columns)}")
    for row in cells["this"]:
        print(f"{row[0]:<8}{row[1]:>20}", end="")
        for value in columns.values():
            this, other = (
                statistics.mean(map(value, cells[name][row])) for name in ("this", "other")
            )
            print(f"{f'{this:,.1f}  {other:,.1f}  {this / other:.2f}':>22}", end="")
        print()


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description="How fast the jobs API is on this machine.")
    parser.add_argument("--against", type=Path, help="another checkout, measured in turns")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each checkout")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each cell")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--queued", type=int, nargs="+", default=[0, 100_000], help="jobs")
    parser.add_argument("--postgresql", action="store_true", help="the store is in PostgreSQL")
    given = parser.parse_args()
    options = Options(seconds=given.seconds, connections=given.connections, queued=given.queued)
    checkouts = {"this": ROOT}
    if given.against:
        checkouts["other"] = given.against.resolve()
        if not (checkouts["other"] / "gardener_api").is_dir():
            sys.exit(f"--against {given.against}: expected a checkout of the gardener")
    print(describe(on_postgresql=given.postgresql))
    print(f"{given.connections} connections, {given.seconds:g} s a cell; {checkouts}\n")
    print(
        f"{'':<8}{'call':<8}{'queued':>9}{'calls/s':>11}{'p50 ms':>9}{'p99 ms':>9}{'CPU us':>9}",
        end="",
    )
    print(f"{'of /alive':>11}{'refused':>9}")
    cells: dict[str, dict[Row, list[Measured]]] = {name: {} for name in checkouts}
    with (
        tempfile.TemporaryDirectory(prefix="gardener-benchmark-") as folder,
        databases(on_postgresql=given.postgresql, folder=Path(folder)) as urls,
    ):
        for name, checkout in [*checkouts.items()] * given.rounds:
            baseline = 0.0
            for row, cell in measure_turn(checkout, next(urls), Path(folder), options):
                baseline = baseline or cell.load.rate
                cells[name].setdefault(row, []).append(cell)
                print_row(name, row, cell, baseline)
    if given.against:
        print_ratios(cells)


if __name__ == "__main__":
    main()
