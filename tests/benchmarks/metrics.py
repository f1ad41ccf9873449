"""How long a scrape takes: ``python tests/benchmarks/metrics.py [jobs] [database URL]``.

A store is filled with that many jobs, each through its whole life (eleven events, four
operations); then the first scrape of a process is timed, and those that follow.
"""

import datetime as dt
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import insert
from starlette.testclient import TestClient

from gardener_api.config import GardenerConfig
from gardener_api.jobs.job import JobKey
from gardener_api.server.metrics import create_metrics_app
from gardener_api.store import schema
from gardener_api.store.engine import writing
from gardener_api.store.store import JobStore

SOURCES = 16
STATES = (
    "queued", "init", "parsing", "postProcessing", "loading", "deduplicating", "copying",
    "deleting", "joining", "complete",
)  # fmt: skip
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
CHUNK = 5_000


def main() -> None:
    """Fill a store, scrape it."""
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    with tempfile.TemporaryDirectory() as folder:
        url = sys.argv[2] if len(sys.argv) > 2 else f"sqlite:///{Path(folder) / 'gardener.db'}"
        store = JobStore.open(url, lease=dt.timedelta(hours=5), max_attempts=3)
        now = fill(store, jobs)
        source = {"bucket": "archive", "experiment": "ndt"}
        sources = [source | {"datatype": f"type{i}"} for i in range(SOURCES)]
        config = GardenerConfig.model_validate({"start_date": "2015-01-01", "sources": sources})
        client = TestClient(create_metrics_app(config, store.metrics, clock=lambda: now))
        for name in ("first", "second", "third"):
            begun = time.perf_counter()
            body = client.get("/metrics").text
            seconds = time.perf_counter() - begun
            lines = sum(not line.startswith("#") for line in body.splitlines())
            print(f"{jobs:,} jobs, {name} scrape: {seconds:.2f} s, {lines:,} series")
        store.close()


def fill(store: JobStore, jobs: int) -> dt.datetime:
    """Put jobs into the store, the last of them an hour ago, some of them queued; the time."""
    numbers = count(1)
    with writing(store._engine).begin() as connection:
        for first in range(0, jobs, CHUNK):
            rows: list[dict[str, Any]] = []
            events: list[dict[str, Any]] = []
            operations: list[dict[str, Any]] = []
            for i in range(first, min(first + CHUNK, jobs)):
                rows.append(job(i, complete=i < jobs * 0.99))
                events += events_of(i, numbers)
                operations += operations_of(i)
            connection.execute(insert(schema.jobs), rows)
            connection.execute(insert(schema.events), events)
            connection.execute(insert(schema.operations), operations)
    return at(jobs) + dt.timedelta(hours=1)


def key(i: int) -> JobKey:
    """The key of a job: one date after the other, from 2015, and then again."""
    date = dt.date(2015, 1, 1) + dt.timedelta(days=i // SOURCES % 4000)
    bucket = f"archive{i // SOURCES // 4000}"
    return JobKey(bucket=bucket, experiment="ndt", datatype=f"type{i % SOURCES}", date=date)


def at(i: int) -> dt.datetime:
    """When a job was done."""
    return START + dt.timedelta(minutes=10 * i)


def job(i: int, *, complete: bool) -> dict[str, Any]:
    """The row of a job."""
    empty = dict.fromkeys(
        ("filter", "tmp", "raw", "join", "detail", "error", "parser", "run_id"), ""
    )
    return empty | {
        "number": i + 1,
        "bucket": key(i).bucket,
        "experiment": "ndt",
        "datatype": key(i).datatype,
        "date": key(i).date,
        "generation": 1,
        "attempt": 1,
        "state": "complete" if complete else "queued",
        "priority": 1,
        "rank": 0,
        "daily": False,
        "created": at(i),
        "entered": at(i),
        "key": str(key(i)),
        "wire_id": str(key(i)),
    }


def events_of(i: int, numbers: Iterator[int]) -> Iterator[dict[str, Any]]:
    """The rows of its events."""
    left = ""
    for state in STATES:
        yield {
            "number": next(numbers),
            "job": i + 1,
            "at": at(i),
            "attempt": 1,
            "state": state,
            "detail": "",
            "left": left,
            "seconds": float(i * 7919 % 90_000),
        }
        left = state


def operations_of(i: int) -> Iterator[dict[str, Any]]:
    """The rows of its operations."""
    for operation in ("load", "dedup", "copy", "delete", "join"):
        yield {
            "key": str(key(i)),
            "table": "raw_ndt.x",
            "operation": operation,
            "run_id": "t",
            "bq_job_ids": "",
            "rows": 1,
            "bytes": i * 7919 % 10**10,
            "slot_seconds": float(i % 5000),
            "bytes_billed": 0,
            "seconds": 1.0,
            "at": at(i),
            "objects": i % 12_000 if operation == "load" else None,
        }


if __name__ == "__main__":
    main()
