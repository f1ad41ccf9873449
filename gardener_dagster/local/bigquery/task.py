"""A job while it is being done, as the code sees it that does it."""

import datetime as dt
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import duckdb

from gardener_dagster.local.bigquery.catalog import Catalog
from gardener_dagster.local.bigquery.database import Connection, Database
from gardener_dagster.local.bigquery.errors import BigQueryError
from gardener_dagster.local.bigquery.joblog import JobLog
from gardener_dagster.local.bigquery.tables import Resource, millis


class Task:
    """A job, for the code that does its work.

    Attributes:
        resource: the job's.
        done: set when the job has ended, and its end is written.
        lock: guards the resource.
        media: data that came with the job.
    """

    def __init__(
        self,
        resource: Resource,
        *,
        database: Database,
        catalog: Catalog,
        log: JobLog,
        now: Callable[[], dt.datetime],
        media: Path | None = None,
    ) -> None:
        self.resource, self.media = resource, media
        self.database, self.catalog, self.now = database, catalog, now
        self.done: Future[None] = Future()
        self.done.set_running_or_notify_cancel()  # so that nobody who waits for it can cancel it
        self.lock = threading.Lock()
        self._log = log
        self._stopped: BigQueryError | None = None
        self._cursors: list[Connection] = []

    @property
    def project(self) -> str:
        """The project that the job runs in."""
        return str(self.resource["jobReference"]["projectId"])

    @property
    def configuration(self) -> Resource:
        """The job's."""
        found: Resource = self.resource["configuration"]
        return found

    @property
    def statistics(self) -> Resource:
        """The job's."""
        found: Resource = self.resource["statistics"]
        return found

    @property
    def dry_run(self) -> bool:
        """Whether nothing is to be done."""
        return bool(self.configuration.get("dryRun"))

    @contextmanager
    def cancellable(self, connection: Connection) -> Iterator[Connection]:
        """What runs on the connection ends when the job is cancelled.

        Raises:
            BigQueryError: the job was cancelled.
        """
        with self.lock:
            self._cursors.append(connection)
        try:
            self.check()
            yield connection
        except duckdb.InterruptException:
            self.check()
            raise
        finally:
            with self.lock:
                self._cursors.remove(connection)

    def check(self) -> None:
        """Ends the work of a cancelled job.

        Raises:
            BigQueryError: the job was cancelled.
        """
        if self._stopped is not None:
            raise self._stopped

    def stop(self, error: BigQueryError) -> None:
        """Ends what the job is doing, soon, with this error."""
        with self.lock:
            self._stopped = error
            for cursor in self._cursors:
                cursor.interrupt()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """The transaction with all that the job does; with it the job ends."""
        with self.database.writing() as connection, self.cancellable(connection):
            yield connection
            self.end(connection)

    def end(self, connection: Connection, error: BigQueryError | None = None) -> None:
        """Writes down that the job has ended."""
        with self.lock:
            done = deepcopy(self.resource)
            done["status"] = error.job_status() if error else {"state": "DONE"}
            now = millis(self.now())
            statistics = done["statistics"]
            started = int(statistics.setdefault("startTime", str(now)))
            statistics["endTime"] = str(now)
            # A slot is a worker; here the job has one for as long as it takes.
            statistics["totalSlotMs"] = str(max(1, now - started))
            if "query" in statistics:
                statistics["query"]["totalSlotMs"] = statistics["totalSlotMs"]
            self._log.end(connection, done)
            self._ended = done

    def publish(self) -> None:
        """The end becomes visible: its transaction is committed."""
        with self.lock:
            self.resource.update(self._ended)
        self.done.set_result(None)

    def record(self, **statistics: object) -> None:
        """Adds to the job's statistics."""
        with self.lock:
            self.statistics.update(statistics)

    def configure(self, kind: str, **values: object) -> None:
        """Fills in what the job's configuration left open."""
        with self.lock:
            self.configuration[kind].update(values)

    def snapshot(self) -> Resource:
        """The job's resource as it is now."""
        with self.lock:
            return deepcopy(self.resource)
