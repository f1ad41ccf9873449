"""Jobs that the worker cannot do: it reports why, and goes on with others."""

import gzip
import tarfile
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import pytest
from google.api_core.exceptions import ServiceUnavailable
from google.cloud.storage import Bucket
from worker_threads import objects

from gardener_api.client import LeasedJob
from gardener_api.jobs.job import Job, JobKey, JobState
from gardener_dagster.local.parser import progress
from gardener_dagster.local.parser.progress import RunningArchives

Tgz = Callable[[Mapping[str, bytes]], bytes]
MakeJob = Callable[..., JobKey]
JobOf = Callable[[JobKey], Job]
Until = Callable[[Callable[[], object]], None]
Sidecar = Callable[..., str]
Start = Callable[..., AbstractContextManager[threading.Thread]]


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


def test_a_defect_is_reported_and_other_jobs_go_on(
    failed: Callable[..., str], make_job: MakeJob, put: Callable[..., str]
) -> None:
    put("a.tgz")

    def hold(job: LeasedJob, name: str, checkpoint: Callable[[], object]) -> None:
        raise ZeroDivisionError("a defect")

    # The second attempt is the other job.
    assert failed(make_job(), hold=hold) == "ZeroDivisionError: a defect"


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
