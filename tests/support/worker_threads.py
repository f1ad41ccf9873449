"""Reference parsers in threads of the test's process, and what they wrote."""

import datetime as dt
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from google.cloud.storage import Bucket

from gardener_api.client import JobsClient, LeasedJob
from gardener_dagster.local.parser.outputs import ArchiveParser, Outcome
from gardener_dagster.local.parser.worker import Worker

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


def objects(bucket: Bucket) -> dict[str, int]:
    """What was written: rows by name."""
    return {
        blob.name.rpartition("/")[2]: len(blob.download_as_bytes().splitlines())
        for blob in bucket.client.list_blobs(OUTPUT)
    }
