import asyncio
import datetime as dt
import io
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
from google.cloud.storage import Bucket
from job_requests import request_for
from worker_threads import DATE, Starter

from gardener_api.config import GardenerConfig
from gardener_api.jobs.job import Job, JobKey
from gardener_api.server.app import Ports, run
from gardener_api.store.store import JobStore
from gardener_dagster.local.parser.rows import Origin, parse_member
from gardener_dagster.warehouse.table_schemas import Field

DATA = Path(__file__).resolve().parents[5] / "shared" / "data"
SECONDS = 30

Parse = Callable[..., dict[str, Any]]
Unknown = Callable[[dict[str, Any], list[Field]], list[str]]
Tgz = Callable[[Mapping[str, bytes]], bytes]
Until = Callable[[Callable[[], object]], None]
Sidecar = Callable[..., str]


@pytest.fixture
def data() -> Path:
    """M-Lab's own files."""
    if not DATA.is_dir():
        pytest.skip("M-Lab's sample data is not beside the project, in ../shared/data")
    return DATA


@pytest.fixture
def parse() -> Parse:
    def parse_(
        datatype: str, content: bytes, date: dt.date = dt.date(2020, 3, 18)
    ) -> dict[str, Any]:
        origin = Origin(
            archive_url="gs://archive-mlab/x.tgz",
            archive_size=10,
            filename="a.json",
            file_size=5,
            parsed=dt.datetime(2024, 3, 2, 12, tzinfo=dt.UTC),
        )
        return parse_member(datatype, content, date=date, origin=origin)

    return parse_


@pytest.fixture
def unknown() -> Unknown:
    """What BigQuery would refuse with "No such field"."""

    def unknown_(value: dict[str, Any], fields: list[Field], path: str = "") -> list[str]:
        known = {field["name"].lower(): field for field in fields}
        found = []
        for name, item in value.items():
            field = known.get(name.lower())
            if field is None:
                found.append(path + name)
            elif field["type"] == "RECORD":
                for one in item if isinstance(item, list) else [item]:
                    found += unknown_(one, field["fields"], f"{path}{name}.")
        return found

    return unknown_


@pytest.fixture
def tgz() -> Tgz:
    def tgz_(files: Mapping[str, bytes]) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                entry.pax_headers = {"MLAB.datatype": "ndt7", "MLAB.experiment.name": "ndt"}
                tar.addfile(entry, io.BytesIO(content))
        return buffer.getvalue()

    return tgz_


@pytest.fixture
def until() -> Until:
    def until_(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, "it did not come to that"
            time.sleep(0.01)

    return until_


@pytest.fixture
def sidecar(config: GardenerConfig, store_url: str) -> Iterator[Sidecar]:
    """Starts the jobs API, in a thread; gives its URL."""
    with ExitStack() as stack:
        yield lambda port=0: stack.enter_context(_sidecar(config, store_url, port))


@contextmanager
def _sidecar(config: GardenerConfig, store_url: str, port: int) -> Iterator[str]:
    listening = threading.Event()
    ports: list[Ports] = []
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    def started(bound: Ports) -> None:
        ports.append(bound)
        listening.set()

    def serve() -> None:
        loop.run_until_complete(
            run(
                config=config,
                store_url=store_url,
                host="127.0.0.1",
                ports=Ports(jobs=port, status=0, metrics=None),
                token=None,
                shutdown_timeout=1,
                stop=stop,
                started=started,
            )
        )

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert listening.wait(SECONDS)
        yield f"http://127.0.0.1:{ports[0].jobs}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


class MakeJob(Protocol):
    def __call__(
        self,
        datatype: str = "ndt7",
        *,
        date: dt.date = ...,
        filter: str = "",
        bucket: str | None = None,
    ) -> JobKey: ...


@pytest.fixture
def make_job(store: JobStore, bucket: Bucket) -> MakeJob:
    """Puts a job into the store."""
    archive = bucket

    def make(
        datatype: str = "ndt7",
        *,
        date: dt.date = dt.date(2024, 3, 2),
        filter: str = "",
        bucket: str | None = None,
    ) -> JobKey:
        key = JobKey(bucket=bucket or archive.name, experiment="ndt", datatype=datatype, date=date)
        ask = request_for(
            key, requester="somebody", run_id="run", filter=filter, join=None, archives=None
        )
        store.enqueue([ask], now=dt.datetime.now(dt.UTC))
        return key

    return make


@pytest.fixture
def job_of(store: JobStore) -> Callable[[JobKey], Job]:
    def job_of_(key: JobKey) -> Job:
        job = store.latest(key)
        assert job is not None
        return job

    return job_of_


@pytest.fixture
def worker(bucket: Bucket) -> Starter:
    return Starter(bucket)


@pytest.fixture
def put(bucket: Bucket, tgz: Tgz) -> Callable[..., str]:
    """Puts an archive of some tests; gives its name."""

    def put_(name: str, tests: int = 1, *, content: bytes | None = None) -> str:
        path = f"ndt/ndt7/{DATE:%Y/%m/%d}/{name}"
        files = {f"{name}-{n}.json": b'{"Version": "v1"}' for n in range(tests)}
        bucket.blob(path).upload_from_string(tgz(files) if content is None else content)
        return path

    return put_
