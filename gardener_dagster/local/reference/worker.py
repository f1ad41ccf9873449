"""Takes jobs from the jobs API and does them, as M-Lab's parsers do; it knows nothing of tables.

What it does more than they: it reports an attempt that cannot succeed, and lets go of a job that is
no longer its own.
"""

import datetime as dt
import json
import logging
import re
import signal
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import FrameType
from typing import IO

from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import GoogleAuthError
from google.cloud import storage
from requests import RequestException

from gardener_api.client import JobGone, JobsAPIError, JobsClient, LeasedJob
from gardener_api.jobs import JobState
from gardener_dagster.local.clients import storage_client
from gardener_dagster.local.reference.archives import TruncatedError, read_members
from gardener_dagster.local.reference.rows import DATATYPES, CorruptError, Origin, parse_member

log = logging.getLogger(__name__)

_SPOOL_BYTES = 32 * 2**20
_STORAGE_ERRORS = (GoogleAPICallError, GoogleAuthError, RequestException)


class FailedJobError(Exception):
    """An attempt that cannot succeed; the message is what the jobs API is told."""


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """What became of an archive."""

    name: str
    rows: int
    corrupt: int


class Worker:
    """A parser that does one job after the other.

    Args:
        jobs: The jobs API.
        storage_client: Of Cloud Storage.
        output_bucket: Where rows are written.
        threads: Archives at a time.
        now: The time, aware.
        stopping: Set when it shall take no further job, and let go of the one it has.
    """

    def __init__(
        self,
        jobs: JobsClient,
        storage_client: storage.Client,
        *,
        output_bucket: str,
        threads: int,
        now: Callable[[], dt.datetime],
        stopping: threading.Event,
    ) -> None:
        self._jobs, self._storage, self._now = jobs, storage_client, now
        self._output = output_bucket
        self._threads, self._stopping = threads, stopping

    def run(self, poll_seconds: float) -> None:
        """Takes and does jobs until it shall stop; asks again after a pause where there is none."""
        while not self._stopping.is_set():
            try:
                job = self._jobs.next()
            except JobsAPIError as error:
                log.warning("no answer from the jobs API, asking again: %s", error)
                job = None
            if job is None:
                self._stopping.wait(poll_seconds)
            else:
                self.do(job)

    def do(self, job: LeasedJob) -> None:
        """Does one job, and reports how it went."""
        try:
            self._parse(job)
        except JobGone:
            log.warning("job %s is no longer ours", job.id)
        except FailedJobError as failed:
            log.error("job %s failed: %s", job.id, failed)
            self._give_up(job, str(failed))
        except JobsAPIError as error:
            log.error("job %s: left to its lease: %s", job.id, error)

    def _give_up(self, job: LeasedJob, reason: str) -> None:
        try:
            self._jobs.error(job.id, reason)
        except JobsAPIError as error:
            log.warning("job %s: left to its lease: %s", job.id, error)

    def _parse(self, job: LeasedJob) -> None:
        if job.datatype not in DATATYPES:
            known = ", ".join(sorted(DATATYPES))
            raise FailedJobError(f"datatype {job.datatype!r}: this parser knows {known}")
        archives = self._list(job)
        self._jobs.update(job.id, JobState.PARSING, "starting tasks")
        parsed: list[Parsed] = []
        faults: list[str] = []
        with ThreadPoolExecutor(self._threads, thread_name_prefix="archive") as pool:
            # A window, so that a heartbeat goes out as each archive is begun and none too early.
            waiting = list(archives)
            running: list[Future[Parsed]] = []
            try:
                while waiting or running:
                    while waiting and len(running) < self._threads:
                        self._jobs.heartbeat(job.id)
                        running.append(pool.submit(self._archive, job, waiting.pop(0)))
                    if self._stopping.is_set():
                        raise FailedJobError("the parser was told to stop")
                    try:
                        done = running.pop(0).result()
                    except FailedJobError as failed:
                        faults.append(str(failed))
                        continue
                    parsed.append(done)
                    self._jobs.update(job.id, JobState.PARSING, done.name)
            finally:
                pool.shutdown(cancel_futures=True)
        self._conclude(job, parsed, faults)

    def _conclude(self, job: LeasedJob, parsed: Sequence[Parsed], faults: Sequence[str]) -> None:
        if faults:
            raise FailedJobError(
                f"{len(faults)} of {len(faults) + len(parsed)} archives failed: {faults[0]}"
            )
        rows, corrupt = sum(p.rows for p in parsed), sum(p.corrupt for p in parsed)
        log.info("job %s: %d archives, %d rows, %d corrupt", job.id, len(parsed), rows, corrupt)
        self._jobs.update(job.id, JobState.POST_PROCESSING)

    def _list(self, job: LeasedJob) -> list[str]:
        wanted = re.compile(job.filter)
        try:
            blobs = list(self._storage.list_blobs(job.bucket, prefix=job.prefix))
        except _STORAGE_ERRORS as error:
            raise FailedJobError(
                f"gs://{job.bucket}/{job.prefix} could not be listed: {error}"
            ) from error
        return [blob.name for blob in blobs if wanted.search(blob.name)]

    def _archive(self, job: LeasedJob, name: str) -> Parsed:
        """Parses one archive into one object of rows.

        What can be read of a truncated archive is written; its end counts as a corrupt member.
        """
        try:
            blob = self._storage.bucket(job.bucket).get_blob(name)
            if blob is None:
                raise FailedJobError(f"gs://{job.bucket}/{name} is gone")
            with (
                tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as out,
                blob.open("rb") as archive,
            ):
                rows, corrupt = self._rows(job, name, blob.size or 0, archive, out)
                out.seek(0)
                target = self._storage.bucket(self._output).blob(f"{job.bucket}/{name}.jsonl")
                target.metadata = {"rows": str(rows)}
                target.upload_from_file(out, content_type="application/x-ndjson")
        except _STORAGE_ERRORS as error:
            raise FailedJobError(f"gs://{job.bucket}/{name}: {error}") from error
        return Parsed(name=name, rows=rows, corrupt=corrupt)

    def _rows(
        self,
        job: LeasedJob,
        name: str,
        size: int,
        archive: IO[bytes],
        out: "tempfile.SpooledTemporaryFile[bytes]",
    ) -> tuple[int, int]:
        rows = corrupt = 0
        try:
            for member in read_members(archive):
                origin = Origin(
                    archive_url=f"gs://{job.bucket}/{name}",
                    archive_size=size,
                    filename=member.name,
                    file_size=member.size,
                    parsed=self._now(),
                )
                try:
                    if member.content is None:
                        raise CorruptError(f"{member.name} {member.fault}")
                    row = parse_member(job.datatype, member.content, date=job.date, origin=origin)
                except CorruptError as error:
                    corrupt += 1
                    log.warning("job %s: %s: %s", job.id, name, error)
                    continue
                out.write(json.dumps(row, separators=(",", ":")).encode() + b"\n")
                rows += 1
        except TruncatedError as error:
            if not rows and not corrupt:
                raise FailedJobError(f"gs://{job.bucket}/{name} is no archive: {error}") from error
            corrupt += 1
            log.warning("job %s: %s is truncated after %d rows: %s", job.id, name, rows, error)
        return rows, corrupt


def run_worker(
    api_url: str,
    *,
    output_bucket: str,
    poll_seconds: float,
    threads: int,
    token: str | None = None,
) -> None:
    """Runs a parser until SIGTERM or SIGINT.

    Args:
        api_url: The jobs API.
        output_bucket: Where rows are written.
        poll_seconds: Pause where there is no job.
        threads: Archives at a time.
        token: What the jobs API wants to be shown.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    with JobsClient(api_url, token=token) as jobs, storage_client() as client:
        log.info("asking %s for jobs, writing to gs://%s", api_url, output_bucket)
        worker = Worker(
            jobs,
            client,
            output_bucket=output_bucket,
            threads=threads,
            now=lambda: dt.datetime.now(dt.UTC),
            stopping=stopping,
        )
        worker.run(poll_seconds)
    log.info("stopped")
