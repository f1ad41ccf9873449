"""Takes jobs from the jobs API and does them, as M-Lab's parsers do.

In addition, it reports an attempt that cannot succeed, names damaged archives, extends the lease of
a job while a long archive makes progress, and stops its work on a job whose lease it has lost.
"""

import datetime as dt
import logging
import queue
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from itertools import islice

from gardener_api.client import JobGone, JobsAPIError, JobsClient, LeasedJob
from gardener_api.jobs.job import JobState
from gardener_api.regex import compile_filter
from gardener_dagster.local.clients import storage_client
from gardener_dagster.local.parser.outputs import (
    STORAGE_ERRORS,
    ArchiveParser,
    Outcome,
    detail_of,
)
from gardener_dagster.local.parser.progress import RunningArchives, StoppedError
from gardener_dagster.local.parser.rows import DATATYPES

log = logging.getLogger(__name__)


HEARTBEAT_SECONDS = 30.0
"""Seconds between two checks whether the archives of a job make progress."""
STALL_SECONDS = 300.0
"""Seconds without progress on an archive after which an attempt is given up. Longer than Cloud
Storage's client retries a call (timeout of 60 s, retries for 120 s), so a slow bucket does not end
an attempt. No known damage makes an archive slower to parse than to read."""


class FailedJobError(Exception):
    """The attempt cannot succeed; the message is reported to the jobs API."""


class Worker:
    """A parser that does one job at a time."""

    def __init__(
        self,
        jobs: JobsClient,
        archives: ArchiveParser,
        *,
        threads: int,
        stopping: threading.Event,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        """Make a worker. It sends no request yet.

        Args:
            jobs: The jobs API.
            archives: Parses an archive.
            threads: Number of archives parsed at the same time.
            stopping: Set to stop the worker: it takes no further job, and gives up its current one.
            heartbeat_seconds: Seconds between two checks of the progress; each sends a heartbeat to
                the jobs API if there is progress.
            stall_seconds: Seconds without progress on an archive until the attempt is given up.
        """
        self._jobs, self._archives = jobs, archives
        self._threads, self._stopping = threads, stopping
        self._heartbeat_seconds, self._stall_seconds = heartbeat_seconds, stall_seconds

    def run(self, poll_seconds: float) -> None:
        """Take and do jobs until it is stopped; if there is none, ask again after a pause."""
        while not self._stopping.is_set():
            try:
                job = self._jobs.next()
            except JobsAPIError as error:
                log.warning("no job, asking again: %s", error)
                job = None
            if job is None:
                self._stopping.wait(poll_seconds)
            else:
                self.do(job)

    def do(self, job: LeasedJob) -> None:
        """Do one job and report its result."""
        log.info("job %s: begun", job.id)
        try:
            outcomes = self._parse(job)
        except JobGone:
            log.warning("job %s: no longer ours", job.id)
        except JobsAPIError as error:
            log.error("job %s: left to its lease: %s", job.id, error)
        except FailedJobError as failed:
            self._give_up(job, str(failed))
        except Exception as error:  # a defect fails this job only; the worker goes on with the next
            log.exception("job %s", job.id)
            self._give_up(job, f"{type(error).__name__}: {error}")
        else:
            rows, corrupt = sum(o.rows for o in outcomes), sum(o.corrupt for o in outcomes)
            log.info(
                "job %s: %d archives, %d rows, %d corrupt tests",
                job.id, len(outcomes), rows, corrupt,
            )  # fmt: skip

    def _give_up(self, job: LeasedJob, reason: str) -> None:
        log.error("job %s: given up: %s", job.id, reason)
        try:
            self._jobs.error(job.id, reason)
        except JobGone:
            log.warning("job %s: no longer ours", job.id)
        except JobsAPIError as error:
            log.error("job %s: left to its lease: %s", job.id, error)

    def _parse(self, job: LeasedJob) -> list[Outcome]:
        if job.datatype not in DATATYPES:
            known = ", ".join(DATATYPES)
            raise FailedJobError(f"datatype {job.datatype!r}: expected one of {known}")
        names = self._list(job)
        self._jobs.update(job.id, JobState.PARSING, "starting tasks")
        outcomes = self._parse_archives(job, names)
        unread = [o for o in outcomes if not o.written]
        if unread and len(unread) == len(outcomes):
            # If others could be read, their rows are kept: a further attempt would read no more.
            raise FailedJobError(
                f"none of {len(unread)} archives could be read; the first,"
                f" gs://{job.bucket}/{unread[0].name}: {unread[0].fault}"
            )
        self._jobs.update(job.id, JobState.POST_PROCESSING, detail_of(outcomes))
        return outcomes

    def _list(self, job: LeasedJob) -> list[str]:
        try:
            wanted = compile_filter(job.filter)
        except ValueError as error:
            raise FailedJobError(f"filter {job.filter!r}: {error}") from error
        try:
            blobs = self._archives.client.list_blobs(job.bucket, prefix=job.prefix)
            return [blob.name for blob in blobs if wanted.search(blob.name)]
        except STORAGE_ERRORS as error:
            url = f"gs://{job.bucket}/{job.prefix}"
            raise FailedJobError(f"{url} could not be listed: {error}") from error

    def _parse_archives(self, job: LeasedJob, names: Sequence[str]) -> list[Outcome]:
        waiting = iter(names)
        outcomes: list[Outcome] = []
        running = RunningArchives(
            lambda name, checkpoint: self._archives.parse(job, name, checkpoint),
            self._stopping.is_set,
        )
        try:
            while True:
                for name in islice(waiting, self._threads - len(running)):
                    self._jobs.heartbeat(job.id)
                    running.start(name)
                if not running:
                    return outcomes
                looked = time.monotonic()
                done = running.wait(self._heartbeat_seconds)
                for name, future in done:
                    outcomes.append(_outcome(job, name, future))
                    self._jobs.update(job.id, JobState.PARSING, name)
                if not done and running.moved() >= looked:
                    self._jobs.heartbeat(job.id)  # only on progress: a stuck parser sends none
                self._check_progress(job, running)
        finally:
            running.stop()

    def _check_progress(self, job: LeasedJob, running: RunningArchives) -> None:
        if not running:
            return
        slowest = running.slowest()
        if (seconds := time.monotonic() - slowest.moved) > self._stall_seconds:
            raise FailedJobError(
                f"gs://{job.bucket}/{slowest.name}: no progress for {seconds:.0f} s"
            )


def _outcome(job: LeasedJob, name: str, future: "Future[Outcome]") -> Outcome:
    try:
        return future.result()
    except StoppedError as error:
        raise FailedJobError("the parser was told to stop") from error
    except STORAGE_ERRORS as error:
        raise FailedJobError(f"gs://{job.bucket}/{name}: {error}") from error


def run_worker(
    api_url: str,
    *,
    output_bucket: str,
    poll_seconds: float,
    threads: int,
    token: str | None = None,
) -> None:
    """Run a parser until SIGTERM or SIGINT, on which it gives up its current job.

    Args:
        api_url: URL of the jobs API.
        output_bucket: Bucket that rows are written to.
        poll_seconds: Pause if there is no job.
        threads: Number of archives parsed at the same time.
        token: Bearer token for the jobs API; ``None``: it requires none.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    stopping, told = threading.Event(), queue.SimpleQueue[int]()

    def stop_when_told() -> None:
        told.get()
        stopping.set()

    # A signal interrupts this thread, which may hold the event's lock: setting the event in the
    # handler could deadlock. A SimpleQueue may be written to in a handler.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: told.put(number))
    threading.Thread(target=stop_when_told, daemon=True).start()
    with JobsClient(api_url, token=token) as jobs, storage_client() as client:
        log.info("asking %s for jobs, writing to gs://%s", api_url, output_bucket)
        archives = ArchiveParser(
            client=client, output_bucket=output_bucket, now=lambda: dt.datetime.now(dt.UTC)
        )
        Worker(jobs, archives, threads=threads, stopping=stopping).run(poll_seconds)
    log.info("ended")
