"""A running job, as the code that executes it sees it."""

import datetime as dt
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from copy import deepcopy

import duckdb

from gardener_dagster.local.bigquery.catalog.catalog import Catalog
from gardener_dagster.local.bigquery.catalog.database import Connection, Database
from gardener_dagster.local.bigquery.catalog.table import Resource, millis
from gardener_dagster.local.bigquery.errors import BigQueryError
from gardener_dagster.local.bigquery.jobs.job_log import JobLog

_INTERRUPT_SECONDS = 0.05
"""Seconds between two interrupts of a job that is being stopped."""


class Task:
    """The state of a job, and the operations that its ``Work`` uses.

    Attributes:
        resource: the ``Job`` resource.
        done: set when the job has ended and its final state is committed.
        hangs: whether a fault keeps the job RUNNING until it is cancelled.
        lock: guards the resource.
    """

    def __init__(
        self,
        resource: Resource,
        *,
        database: Database,
        catalog: Catalog,
        log: JobLog,
        now: Callable[[], dt.datetime],
        hangs: bool = False,
    ) -> None:
        self.resource, self.hangs = resource, hangs
        self.database, self.catalog, self.now = database, catalog, now
        self.done: Future[None] = Future()
        self.done.set_running_or_notify_cancel()  # a waiting request must not cancel it
        self.lock = threading.Lock()
        self._log = log
        self._stopped: BigQueryError | None = None
        self._cursors: list[Connection] = []

    @property
    def key(self) -> tuple[str, str]:
        """The job's project and id."""
        reference = self.resource["jobReference"]
        return str(reference["projectId"]), str(reference["jobId"])

    @property
    def project(self) -> str:
        """The project that the job runs in."""
        return self.key[0]

    @property
    def configuration(self) -> Resource:
        """The job's configuration."""
        found: Resource = self.resource["configuration"]
        return found

    @contextmanager
    def cancellable(self, connection: Connection) -> Iterator[Connection]:
        """Interrupt the connection's statements if the job is stopped.

        Raises:
            BigQueryError: the job was stopped.
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
        """Raise the error of a stopped job.

        Raises:
            BigQueryError: the job was stopped.
        """
        if self._stopped is not None:
            raise self._stopped

    def stop(self, error: BigQueryError) -> None:
        """Stop the job with this error; a thread interrupts its statements."""
        self._stopped = error
        threading.Thread(target=self._interrupt, name="interrupt", daemon=True).start()

    def _interrupt(self) -> None:
        # Repeat the interrupt: DuckDB discards one that arrives between two statements.
        while True:
            with self.lock:
                if not self._cursors:
                    return
                for cursor in self._cursors:
                    cursor.interrupt()
            time.sleep(_INTERRUPT_SECONDS)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open the transaction that writes the job's rows and its final state."""
        with self.database.writing() as connection, self.cancellable(connection):
            yield connection
            self.end(connection)

    def begin(self) -> None:
        """Set the job RUNNING."""
        with self.lock:
            self.resource["status"] = {"state": "RUNNING"}
            self.resource["statistics"]["startTime"] = str(millis(self.now()))

    def end(self, connection: Connection, error: BigQueryError | None = None) -> None:
        """Store the job's final state."""
        with self.lock:
            ended = deepcopy(self.resource)
            ended["status"] = error.job_status() if error else {"state": "DONE"}
            now, statistics = millis(self.now()), ended["statistics"]
            statistics["endTime"] = str(now)
            # BigQuery sums the time of all slots (workers). Here each job has one slot.
            statistics["totalSlotMs"] = str(max(1, now - int(statistics["startTime"])))
            self._log.end(connection, ended)
            self._ended = ended

    def publish(self) -> None:
        """Make the final state visible. Call this after its transaction is committed."""
        with self.lock:
            self.resource.update(self._ended)
        self.done.set_result(None)

    def record(self, **statistics: object) -> None:
        """Add to the job's statistics."""
        with self.lock:
            self.resource["statistics"].update(statistics)

    def configure(self, kind: str, **values: object) -> None:
        """Set values in the job's configuration."""
        with self.lock:
            self.configuration[kind].update(values)

    def snapshot(self) -> Resource:
        """Return a copy of the job's resource."""
        with self.lock:
            return deepcopy(self.resource)
