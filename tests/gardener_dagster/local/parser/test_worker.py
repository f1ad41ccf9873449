"""The worker against the real jobs API and store, and Cloud Storage's emulator."""

import datetime as dt
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from google.cloud.storage import Bucket
from worker_threads import DATE, OUTPUT, Starter, objects, utc_now

from gardener_api.client import LeasedJob
from gardener_api.jobs.job import Job, JobKey, JobState
from gardener_api.store.store import JobStore
from gardener_dagster.local.samples.archives import make_samples

MakeJob = Callable[..., JobKey]
JobOf = Callable[[JobKey], Job]
Until = Callable[[Callable[[], object]], None]
Sidecar = Callable[..., str]
Start = Callable[..., AbstractContextManager[threading.Thread]]


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


WAITS_FOR_THE_LOCK = """
import os, signal, sys, threading
from gardener_dagster.local.parser.worker import run_worker

class Interrupted(threading.Event):
    def wait(self, timeout=None):
        with self._cond:  # as Event.wait does, for a moment
            os.kill(os.getpid(), signal.SIGTERM)
        return super().wait(timeout)

threading.Event = Interrupted
run_worker(sys.argv[1], output_bucket="etl-mlab", poll_seconds=60, threads=2)
"""


def test_a_process_ends_that_is_told_to_while_it_begins_to_wait(
    sidecar: Sidecar, bucket: Bucket
) -> None:
    command = [sys.executable, "-c", WAITS_FOR_THE_LOCK, sidecar()]
    assert subprocess.run(command, timeout=20, check=False, env=os.environ).returncode == 0
