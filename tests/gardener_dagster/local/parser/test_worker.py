"""The worker against the real jobs API and store, and Cloud Storage's emulator."""

import datetime as dt
import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from google.api_core.exceptions import ServiceUnavailable
from google.cloud.storage import Bucket

from gardener_api.client import JobsClient, LeasedJob
from gardener_api.jobs.job import Job, JobKey, JobState
from gardener_api.store.store import JobStore
from gardener_dagster.local.parser import progress
from gardener_dagster.local.parser.outputs import ArchiveParser, Outcome
from gardener_dagster.local.parser.progress import RunningArchives
from gardener_dagster.local.parser.worker import Worker
from gardener_dagster.local.samples.archives import make_samples

Tgz = Callable[[Mapping[str, bytes]], bytes]
MakeJob = Callable[..., JobKey]
JobOf = Callable[[JobKey], Job]
Until = Callable[[Callable[[], object]], None]
Sidecar = Callable[..., str]
DATE = dt.date(2024, 3, 2)
OUTPUT = "etl-mlab"


def utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True)
class Held(ArchiveParser):
    """An archive is read when the test says so."""

    hold: Callable[[LeasedJob, str, Callable[[], object]], None]

    def parse(self, job: LeasedJob, name: str, checkpoint: Callable[[], object]) -> Outcome:
        self.hold(job, name, checkpoint)
        return super().parse(job, name, checkpoint)


class Starter:
    """Makes workers, and runs them in threads."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self.stopping = threading.Event()

    @contextmanager
    def __call__(
        self,
        url: str,
        *,
        output: str = OUTPUT,
        threads: int = 2,
        hold: Callable[[LeasedJob, str, Callable[[], object]], None] = lambda *_: None,
        heartbeat_seconds: float = 60,
        stall_seconds: float = 60,
    ) -> Iterator[threading.Thread]:
        archives = Held(client=self._bucket.client, output_bucket=output, now=utc_now, hold=hold)
        with JobsClient(url, backoff=0.01) as jobs:
            worker = Worker(
                jobs,
                archives,
                threads=threads,
                stopping=self.stopping,
                heartbeat_seconds=heartbeat_seconds,
                stall_seconds=stall_seconds,
            )
            thread = threading.Thread(target=worker.run, args=[0.01])
            thread.start()
            try:
                yield thread
            finally:
                self.stopping.set()
                thread.join()


Start = Callable[..., AbstractContextManager[threading.Thread]]


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


def objects(bucket: Bucket) -> dict[str, int]:
    """What was written: rows by name."""
    return {
        blob.name.rpartition("/")[2]: len(blob.download_as_bytes().splitlines())
        for blob in bucket.client.list_blobs(OUTPUT)
    }


def test_the_rows_of_the_samples_are_those_expected(
    worker: Start,
    sidecar: Sidecar,
    bucket: Bucket,
    make_job: MakeJob,
    job_of: JobOf,
    until: Until,
    tmp_path: Path,
) -> None:
    expected = make_samples(tmp_path, [DATE])
    for path in sorted(tmp_path.rglob("*.tgz")):
        bucket.blob(str(path.relative_to(tmp_path))).upload_from_filename(str(path))
    keys = {datatype: make_job(datatype) for datatype in ("ndt7", "annotation2")}
    with worker(sidecar()):
        until(lambda: all(job_of(k).state is JobState.POST_PROCESSING for k in keys.values()))
    for datatype, key in keys.items():
        blobs = list(bucket.client.list_blobs(OUTPUT, prefix=f"archive-mlab/{key.prefix}"))
        archives = {blob.name for blob in bucket.client.list_blobs(bucket, prefix=key.prefix)}
        assert {blob.name for blob in blobs} == {f"archive-mlab/{a}.jsonl" for a in archives}
        rows = []
        for blob in blobs:
            lines = [json.loads(line) for line in blob.download_as_text().splitlines()]
            assert blob.metadata == {"rows": str(len(lines))}
            rows += lines
        wanted = expected[datatype, DATE]
        assert len(blobs) == wanted.archives
        assert len(rows) == wanted.rows_loaded
        assert len({row.get("ID", row.get("id")) for row in rows}) == wanted.raw_rows
        assert (job_of(key).attempt, job_of(key).error) == (1, "")


def test_only_what_the_filter_wants_is_parsed(
    worker: Start,
    sidecar: Sidecar,
    bucket: Bucket,
    make_job: MakeJob,
    job_of: JobOf,
    put: Callable[..., str],
    until: Until,
) -> None:
    put("a-mlab1-lga05.tgz")
    put("a-mlab2-lga05.tgz")
    key = make_job(filter=r"ndt7/.*-mlab2-")
    with worker(sidecar()):
        until(lambda: job_of(key).state is JobState.POST_PROCESSING)
    assert objects(bucket) == {"a-mlab2-lga05.tgz.jsonl": 1}


def test_a_day_without_archives_is_done_at_once(
    worker: Start, sidecar: Sidecar, make_job: MakeJob, job_of: JobOf, until: Until
) -> None:
    key = make_job()
    with worker(sidecar()):
        until(lambda: job_of(key).state is JobState.POST_PROCESSING)


def test_some_archives_that_are_none_do_not_keep_the_others_back(
    worker: Start,
    sidecar: Sidecar,
    bucket: Bucket,
    make_job: MakeJob,
    job_of: JobOf,
    put: Callable[..., str],
    until: Until,
) -> None:
    put("a.tgz", content=b"this is no archive")
    put("b.tgz", 3)
    key = make_job()
    with worker(sidecar()):
        until(lambda: job_of(key).state is JobState.POST_PROCESSING)
    assert objects(bucket) == {"b.tgz.jsonl": 3}


def test_archives_are_parsed_at_the_same_time(
    worker: Start,
    sidecar: Sidecar,
    make_job: MakeJob,
    job_of: JobOf,
    put: Callable[..., str],
    until: Until,
) -> None:
    for number in range(6):
        put(f"{number}.tgz")
    key = make_job()
    together = threading.Barrier(3)
    with worker(sidecar(), threads=3, hold=lambda *_: together.wait(20) and None):
        until(lambda: job_of(key).state is JobState.POST_PROCESSING)


# -- what is reported


def failure(job: Job) -> str:
    """The last error, when both attempts have failed."""
    return job.error if job.state is JobState.FAILED else ""


@pytest.fixture
def failed(sidecar: Sidecar, worker: Start, job_of: JobOf, until: Until) -> Callable[..., str]:
    """Runs a worker until the job has failed; gives the error."""

    def failed_(key: JobKey, **options: object) -> str:
        with worker(sidecar(), **options):
            until(lambda: failure(job_of(key)))
        return failure(job_of(key))

    return failed_


def test_a_listing_that_fails_is_reported(failed: Callable[..., str], make_job: MakeJob) -> None:
    error = failed(make_job(bucket="no-such-bucket"))
    assert "gs://no-such-bucket/ndt/ndt7/2024/03/02/ could not be listed: 404" in error


def test_an_upload_that_fails_is_reported(
    failed: Callable[..., str], make_job: MakeJob, put: Callable[..., str]
) -> None:
    name = put("a.tgz")
    error = failed(make_job(), output="no-such-bucket")
    assert error.startswith(f"gs://archive-mlab/{name}: 404")


def test_a_download_that_fails_is_reported_and_not_taken_for_a_short_archive(
    failed: Callable[..., str], make_job: MakeJob, put: Callable[..., str], bucket: Bucket
) -> None:
    def hold(job: LeasedJob, name: str, checkpoint: Callable[[], object]) -> None:
        if name.endswith("b.tgz"):
            raise ServiceUnavailable("come back later")

    put("a.tgz")
    name = put("b.tgz")
    error = failed(make_job(), hold=hold)
    assert error == f"gs://archive-mlab/{name}: 503 come back later"


def test_archives_that_are_all_none_are_reported(
    failed: Callable[..., str], make_job: MakeJob, put: Callable[..., str], bucket: Bucket
) -> None:
    put("a.tgz", content=b"this is no archive")
    put("b.tgz", content=b"")
    error = failed(make_job())
    assert error.startswith("none of 2 archives could be read; the first, gs://archive-mlab/ndt/")
    assert objects(bucket) == {}


def test_a_datatype_that_it_does_not_know_is_reported(
    failed: Callable[..., str], make_job: MakeJob
) -> None:
    error = failed(make_job("pcap"))
    assert error == "datatype 'pcap': expected one of annotation2, hopannotation2, ndt7"


def test_a_filter_that_is_none_is_reported(failed: Callable[..., str], make_job: MakeJob) -> None:
    assert failed(make_job(filter="(")).startswith("filter '(': missing )")


def test_d37_a_filter_is_read_as_gos(
    worker: Start,
    sidecar: Sidecar,
    bucket: Bucket,
    make_job: MakeJob,
    job_of: JobOf,
    put: Callable[..., str],
    until: Until,
) -> None:
    put("a-2024-mlab1.tgz")
    put("a-none-mlab1.tgz")
    key = make_job(filter=r"a-[[:digit:]]{4}-.*\.tgz\z")
    with worker(sidecar()):
        until(lambda: job_of(key).state is JobState.POST_PROCESSING)
    assert objects(bucket) == {"a-2024-mlab1.tgz.jsonl": 1}


def test_a_defect_is_reported_and_other_jobs_go_on(
    failed: Callable[..., str], make_job: MakeJob, put: Callable[..., str]
) -> None:
    put("a.tgz")

    def hold(job: LeasedJob, name: str, checkpoint: Callable[[], object]) -> None:
        raise ZeroDivisionError("a defect")

    # The second attempt is the other job.
    assert failed(make_job(), hold=hold) == "ZeroDivisionError: a defect"


# -- leases


def test_a_heartbeat_keeps_the_lease_while_an_archive_gets_on(
    worker: Start,
    sidecar: Sidecar,
    make_job: MakeJob,
    job_of: JobOf,
    put: Callable[..., str],
    until: Until,
) -> None:
    put("a.tgz")
    key = make_job()
    begun, go_on = threading.Event(), threading.Event()

    def hold(job: LeasedJob, name: str, checkpoint: Callable[[], object]) -> None:
        begun.set()
        while not go_on.wait(0.001):
            checkpoint()

    with worker(sidecar(), hold=hold, heartbeat_seconds=0.01):
        assert begun.wait(20)
        first = job_of(key).lease_expires
        assert first is not None
        until(lambda: (job_of(key).lease_expires or first) > first)
        go_on.set()
        until(lambda: job_of(key).state is JobState.POST_PROCESSING)


def test_d35_a_parser_that_is_stuck_loses_its_lease(
    worker: Start,
    sidecar: Sidecar,
    make_job: MakeJob,
    job_of: JobOf,
    put: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put("a.tgz")
    key = make_job()
    stuck, looked, go_on = threading.Event(), threading.Semaphore(0), threading.Event()

    def hold(job: LeasedJob, name: str, checkpoint: Callable[[], object]) -> None:
        stuck.set()
        go_on.wait(20)

    def moved(self: RunningArchives) -> float:
        looked.release()
        return found(self)

    found = RunningArchives.moved
    monkeypatch.setattr(RunningArchives, "moved", moved)
    with worker(sidecar(), hold=hold, heartbeat_seconds=0.01):
        assert stuck.wait(20)
        for _ in range(2):  # the first look may find that it was only just begun
            assert looked.acquire(timeout=20)
        before = job_of(key).lease_expires
        for _ in range(20):
            assert looked.acquire(timeout=20)
        assert job_of(key).lease_expires == before, "a heartbeat told of life, not of progress"
        go_on.set()


def test_d35_an_attempt_that_is_stuck_is_given_up_and_other_jobs_go_on(
    worker: Start,
    sidecar: Sidecar,
    make_job: MakeJob,
    job_of: JobOf,
    put: Callable[..., str],
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "STOP_SECONDS", 0.05)
    name = put("a.tgz")
    key = make_job()
    go_on = threading.Event()

    def hold(job: LeasedJob, name: str, checkpoint: Callable[[], object]) -> None:
        go_on.wait(60)

    try:
        with worker(sidecar(), hold=hold, heartbeat_seconds=0.05, stall_seconds=0.2):
            until(lambda: failure(job_of(key)))
            other = make_job("annotation2")
            until(lambda: job_of(other).state is JobState.POST_PROCESSING)
    finally:
        go_on.set()
    assert failure(job_of(key)).startswith(f"gs://archive-mlab/{name}: no progress for ")


@pytest.mark.timeout(60)
def test_d35_damaged_archives_are_named_and_their_readable_rows_are_kept(
    worker: Start,
    sidecar: Sidecar,
    bucket: Bucket,
    make_job: MakeJob,
    job_of: JobOf,
    put: Callable[..., str],
    until: Until,
    tgz: Tgz,
) -> None:
    """The archive whose member has a pax size of 30 nines held the parser for ever."""
    whole = tgz({f"{n}.json": b'{"Version": "v1"}' for n in range(3)})
    tar = gzip.decompress(whole)
    record = b"%d size=%s\n" % (39, b"9" * 30)
    assert len(record) == 39
    extended = tarfile.TarInfo("pax")
    extended.type, extended.size = tarfile.XHDTYPE, len(record)
    nines = extended.tobuf(tarfile.GNU_FORMAT) + record + bytes(512 - len(record)) + tar
    put("a.tgz", content=gzip.compress(nines))
    put("b.tgz", content=whole[: len(whole) - 20])
    put("c.tgz", 2)
    key = make_job()
    with worker(sidecar()):
        until(lambda: job_of(key).state is JobState.POST_PROCESSING)
    assert objects(bucket)["a.tgz.jsonl"] == 3
    assert objects(bucket)["c.tgz.jsonl"] == 2
    detail = job_of(key).detail
    assert detail.startswith(
        "damaged archives: 2 of 3: a.tgz (an extended header is damaged: a size"
    )
    assert "3 rows kept), b.tgz (" in detail


def test_it_lets_go_of_a_job_that_is_no_longer_its_own(
    worker: Start,
    sidecar: Sidecar,
    store: JobStore,
    make_job: MakeJob,
    job_of: JobOf,
    put: Callable[..., str],
    until: Until,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for number in range(9):
        put(f"{number}.tgz")
    key = make_job()
    seen: list[str] = []

    def hold(job: LeasedJob, name: str, checkpoint: Callable[[], object]) -> None:
        seen.append(job.id)
        if len(seen) == 2:  # its lease ends here; another attempt begins
            store.expire(now=utc_now() + dt.timedelta(days=1))

    with worker(sidecar(), threads=1, hold=hold):
        until(lambda: job_of(key).state is JobState.POST_PROCESSING)
    first, second = dict.fromkeys(seen)
    assert (seen.count(first), seen.count(second)) == (2, 9)
    assert job_of(key).attempt == 2
    assert "lease" in job_of(key).error
    assert "no longer ours" in caplog.text
    assert "given up" not in caplog.text


def test_it_waits_for_a_jobs_api_that_is_not_there(
    worker: Start,
    sidecar: Sidecar,
    make_job: MakeJob,
    job_of: JobOf,
    until: Until,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    key = make_job()
    with worker(f"http://127.0.0.1:{port}"):
        until(lambda: "asking again" in caplog.text)
        sidecar(port)
        until(lambda: job_of(key).state is JobState.POST_PROCESSING)


# -- the end


def test_told_to_stop_it_gives_up_what_it_has(
    worker: Starter,
    sidecar: Sidecar,
    bucket: Bucket,
    make_job: MakeJob,
    job_of: JobOf,
    put: Callable[..., str],
) -> None:
    for number in range(9):
        put(f"{number}.tgz")
    key = make_job()

    with worker(sidecar(), threads=1, hold=lambda *_: worker.stopping.set()) as thread:
        thread.join(20)
        assert not thread.is_alive()
    job = job_of(key)
    assert (job.state, job.attempt) == (JobState.QUEUED, 2)
    assert job.error == "the parser was told to stop"
    assert objects(bucket) == {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_ends_when_it_is_told_to(
    sidecar: Sidecar,
    bucket: Bucket,
    make_job: MakeJob,
    job_of: JobOf,
    put: Callable[..., str],
    until: Until,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    put("a.tgz", 2)
    key = make_job()
    program = (
        "import sys; from gardener_dagster.local.parser.worker import run_worker;"
        "run_worker(sys.argv[1], output_bucket='etl-mlab', poll_seconds=60, threads=2)"
    )
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", program, sidecar()], stderr=file, env=os.environ
        )
    try:
        until(lambda: job_of(key).state is JobState.POST_PROCESSING)
        process.send_signal(number)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    text = log.read_text()
    assert "1 archives, 2 rows, 0 corrupt tests" in text
    assert text.endswith("ended\n")
    assert objects(bucket) == {"a.tgz.jsonl": 2}
