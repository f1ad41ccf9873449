"""What the table operations take for a large day on this machine: run by hand, asserts nothing.

    .venv/bin/python tests/benchmarks/warehouse.py [--rows 1000000] [--archives 100]

The day's rows are those of ndt7 with their summary, each with an annotation. The local BigQuery and
Cloud Storage run as processes. The baseline of dedup is one that rewrites the partition always,
measured on the same rows; a clean day, and one with duplicates that replaces it.

Dedup's query compares tmp with the published partition. What that adds, the audits before the copy,
is what it reads more than a query over the keys of tmp alone.
"""

import argparse
import contextlib
import datetime as dt
import json
import os
import platform
import random
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import requests

from gardener_dagster.local.clients import bigquery_client, storage_client
from gardener_dagster.warehouse.engine import Engine, Parameter, Settings
from gardener_dagster.warehouse.names import JobContext, SourceTables, Step, quoted_table
from gardener_dagster.warehouse.objects import LoadSource
from gardener_dagster.warehouse.operations.warehouse import Warehouse
from gardener_dagster.warehouse.queries import key_parts, query
from gardener_dagster.warehouse.results import BqJob, Result

if TYPE_CHECKING:
    from google.cloud.storage import Client

DATE = dt.date(2024, 3, 1)
OUTPUT, SOURCE = "etl-benchmark", "archive-benchmark"
TABLES = SourceTables(experiment="ndt", datatype="ndt7", tmp="tmp_ndt", raw="raw_ndt", joined="ndt")
ANNOTATIONS = SourceTables(experiment="ndt", datatype="annotation2", tmp="tmp_ndt", raw="raw_ndt")
DUPLICATES = (0.0, 0.01)
START_SECONDS = 60.0


def parser_of(datatype: str, archive: int, row: int) -> dict[str, object]:
    """The `parser` record of a row."""
    moment = dt.datetime(2024, 3, 2, 12, tzinfo=dt.UTC) + dt.timedelta(milliseconds=row)
    return {
        "Version": "v2.0.0",
        "Time": moment.isoformat(),
        "ArchiveURL": f"gs://{SOURCE}/ndt/{datatype}/{DATE:%Y/%m/%d}/{archive:05}.tgz",
        "Filename": f"2024/03/01/ndt7-{row}.json.gz",
        "Priority": 0,
        "GitCommit": "0123abc",
        "ArchiveSize": 1_000_000,
        "FileSize": 20_000,
    }


def ndt7_row(row: int, archive: int, chance: random.Random) -> dict[str, object]:
    """A test's row, without its measurements."""
    identity = f"ndt-{row % 1000:03}_1700000000_{row:016X}"
    return {
        "id": identity,
        "date": DATE.isoformat(),
        "parser": parser_of("ndt7", archive, row),
        "a": {
            "UUID": identity,
            "TestTime": "2024-03-01T11:22:33.000Z",
            "CongestionControl": "bbr",
            "MeanThroughputMbps": round(chance.uniform(0.1, 900), 6),
            "MinRTT": round(chance.uniform(1, 300), 3),
            "LossRate": round(chance.random() / 10, 6),
        },
        "raw": {"ServerIP": "192.0.2.1", "ServerPort": 443, "ClientIP": f"198.51.100.{row % 256}"},
    }


def annotation_row(row: int, archive: int, chance: random.Random) -> dict[str, object]:
    """The row of a test's annotation."""
    return {
        "id": f"ndt-{row % 1000:03}_1700000000_{row:016X}",
        "date": DATE.isoformat(),
        "parser": parser_of("annotation2", archive, row),
        "server": {"Site": "lga03", "Machine": "mlab1"},
        "client": {
            "Geo": {"CountryCode": "US", "City": f"City {chance.randrange(5000)}"},
            "Network": {"ASNumber": chance.randrange(64_000), "ASName": "An Example Network"},
        },
    }


def write(
    client: "Client",
    datatype: str,
    make: Callable[[int, int, random.Random], dict[str, object]],
    *,
    rows: int,
    archives: int,
    duplicates: float,
) -> LoadSource:
    """Writes a day's parsed objects, and says how to load them."""
    chance = random.Random(1)
    prefix = f"{SOURCE}/ndt/{datatype}/{DATE:%Y/%m/%d}"
    bucket, size, each = client.bucket(OUTPUT), 0, rows // archives
    for archive in range(archives):
        numbers = list(range(archive * each, (archive + 1) * each))
        numbers += chance.sample(numbers, round(duplicates * each))
        lines = "".join(json.dumps(make(row, archive, chance)) + "\n" for row in numbers)
        bucket.blob(f"{prefix}/{archive:05}.tgz.jsonl").upload_from_string(lines)
        size += len(lines)
    return LoadSource(uris=(f"gs://{OUTPUT}/{prefix}/*",), objects=archives, size=size)


class Server:
    """A process, and the most memory it took since it was last asked."""

    def __init__(self, *command: str, url: str, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command],
            env=os.environ | environment,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                requests.get(url, timeout=5)
                return
            except requests.exceptions.ConnectionError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    self.stop()
                    raise
                time.sleep(0.05)

    def forget_peak(self) -> None:
        """Begins to look for the peak anew (Linux)."""
        with contextlib.suppress(OSError):
            Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")

    def peak(self) -> float:
        """Most resident memory, in MB; not a number where the system does not say."""
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text()
        except OSError:
            return float("nan")
        [line] = [x for x in status.splitlines() if x.startswith("VmHWM")]
        return int(line.split()[1]) / 1024

    def stop(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.wait(timeout=30)


@contextlib.contextmanager
def servers(folder: Path) -> Iterator[tuple[Server, str, str]]:
    """The local BigQuery, its URL, and that of Cloud Storage."""
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    store, warehouse = (f"http://127.0.0.1:{port}" for port in ports)
    buckets = Server(
        "gcp_storage_emulator", "start", f"--port={ports[0]}", "--in-memory", url=store
    )
    try:
        bigquery = Server(
            "gardener_dagster.local.bigquery",
            f"--port={ports[1]}",
            f"--data={folder}",
            url=warehouse,
            STORAGE_EMULATOR_HOST=store,
        )
        try:
            yield bigquery, warehouse, store
        finally:
            bigquery.stop()
    finally:
        buckets.stop()


class Bench:
    """Measures the operations on one server."""

    def __init__(self, server: Server, url: str) -> None:
        self._server = server
        self._client = bigquery_client(url)
        settings = Settings(priority="INTERACTIVE")
        self.warehouse = Warehouse(self._client, settings)
        self._engine = Engine(self._client, settings)
        self.baseline = 0

    def measure(
        self,
        day: str,
        name: str,
        work: Callable[[JobContext], Result | BqJob],
        *,
        loaded: int = 0,
    ) -> int:
        """Does the work, prints its row of the table; returns the bytes that it read.

        Args:
            day: which one.
            name: of the work.
            work: does it.
            loaded: bytes, to compare those read with.
        """
        self._server.forget_peak()
        begun = time.perf_counter()
        result = work(JobContext(run_id=uuid.uuid4().hex, date=DATE))
        seconds = time.perf_counter() - begun
        read = result.bytes_processed
        ratio = ""
        if name == "dedup, rewriting always":
            self.baseline, ratio = read, "1.000"
        elif name == "dedup":
            ratio = f"{read / self.baseline:.3f}"
        elif loaded:
            ratio = f"{read / loaded:.1%} ld"
        rows = f"{result.rows:,}" if isinstance(result, Result) else ""
        show(day, name, f"{seconds:.2f}", f"{self._server.peak():,.0f}", f"{read / 1e6:,.1f}",
             ratio, rows)  # fmt: skip
        return read

    def day(self, name: str, source: LoadSource) -> None:
        """All operations of a day, in their order, after the baseline."""
        tables = self.warehouse
        tables.load(TABLES, source, JobContext(run_id=uuid.uuid4().hex, date=DATE))
        self.measure(name, "dedup, rewriting always", self.rewrite)
        self.measure(name, "load", lambda ctx: tables.load(TABLES, source, ctx))
        survey, tmp = tables.survey, TABLES.tmp_partition(DATE)
        alone = self.measure(
            name,
            "keys of tmp",
            lambda ctx: survey.count_keys(TABLES, tmp, ["id"], ctx).bq_jobs[0],
            loaded=source.size,
        )
        both = 0

        def dedup(ctx: JobContext) -> Result:
            nonlocal both
            result = tables.dedup(TABLES, ["id"], ctx)
            both = result.bq_jobs[0].bytes_processed
            return result

        self.measure(name, "dedup", dedup)
        added = both - alone
        show(name, "audits before the copy", "", "", f"{added / 1e6:,.1f}",
             f"{added / source.size:.1%} ld", "")  # fmt: skip
        self.measure(name, "copy", lambda ctx: tables.copy(TABLES, ctx, parse_had_no_files=False))
        self.measure(name, "delete", lambda ctx: tables.delete(TABLES, ctx))
        self.measure(
            name,
            "audits before the join",
            lambda ctx: survey.count_annotated(TABLES, ctx).bq_jobs[0],
            loaded=source.size,
        )
        self.measure(
            name, "join", lambda ctx: tables.join(TABLES, ctx, annotations_known_empty=False)
        )

    def rewrite(self, ctx: JobContext) -> BqJob:
        """A dedup that does not look first."""
        partition, parts = TABLES.tmp_partition(DATE), key_parts(["id"])
        sql = query(
            "dedup",
            table=quoted_table(self._engine.project, partition.table_id),
            key=parts["key"],
            keyless=parts["keyless"],
        )
        step = Step(operation="dedup", tables=TABLES, ctx=ctx, partition=partition)
        parameters = [Parameter("date", "DATE", DATE)]
        return self._engine.query(step, sql, parameters, destination=partition)[1]


def show(*cells: str) -> None:
    """Prints a row of the table."""
    widths = ("<17", "<25", ">9", ">9", ">10", ">10", ">12")
    print("".join(f"{c:{w}}" for c, w in zip(cells, widths, strict=True)), flush=True)


def describe() -> str:
    """The machine."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((x.partition(": ")[2] for x in lines if x.startswith("model name")), cpu)
    load = os.getloadavg()[0]
    return (
        f"{cpu}, {os.cpu_count()} cores, load {load:.1f} before; Python {platform.python_version()}"
    )


def main() -> None:
    """Reads the options and measures."""
    options = argparse.ArgumentParser(description="What the operations take on this machine.")
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--archives", type=int, default=100)
    chosen = options.parse_args()
    print(describe())
    with (
        tempfile.TemporaryDirectory(prefix="gardener-benchmark-") as folder,
        servers(Path(folder)) as (server, bigquery_url, storage_url),
        storage_client(storage_url) as store,
    ):
        store.create_bucket(OUTPUT)
        bench = Bench(server, bigquery_url)
        tables = bench.warehouse
        size = {"rows": chosen.rows, "archives": chosen.archives}
        annotations = write(store, "annotation2", annotation_row, **size, duplicates=0)
        ctx = JobContext(run_id=uuid.uuid4().hex, date=DATE)
        tables.load(ANNOTATIONS, annotations, ctx)
        tables.copy(ANNOTATIONS, ctx, parse_had_no_files=False)
        tables.delete(ANNOTATIONS, ctx)
        print(f"{chosen.rows:,} rows of ndt7 in {chosen.archives} objects; as many annotations")
        print("of always: of a dedup that rewrites always; ld: of the bytes that were loaded\n")
        show("day", "operation", "seconds", "peak MB", "MB read", "of always", "rows after")
        for share in DUPLICATES:
            source = write(store, "ndt7", ndt7_row, **size, duplicates=share)
            bench.day(f"{share:.0%} duplicates" if share else "clean", source)


if __name__ == "__main__":
    main()
