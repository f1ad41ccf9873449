"""The life of jobs: PENDING, RUNNING, DONE. ``load``, ``query`` and ``copy`` do the work.

https://cloud.google.com/bigquery/docs/reference/rest/v2/Job. Jobs run in a small pool of threads.
One transaction writes a job's rows and its final state: if the server is killed, a job has either
ended and changed the tables, or changed nothing.
"""

import datetime as dt
import logging
import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from typing import Protocol

import duckdb

from gardener_dagster.local.bigquery.catalog.catalog import Catalog
from gardener_dagster.local.bigquery.catalog.database import Database
from gardener_dagster.local.bigquery.catalog.partitions import drop_expired_tables
from gardener_dagster.local.bigquery.catalog.table import Resource, millis
from gardener_dagster.local.bigquery.errors import (
    BigQueryError,
    duplicate,
    not_found,
    not_implemented,
    refuse_keys,
)
from gardener_dagster.local.bigquery.faults import Fault
from gardener_dagster.local.bigquery.jobs.job_log import JobLog, server_stopped
from gardener_dagster.local.bigquery.jobs.task import Task

_log = logging.getLogger(__name__)

_KINDS = ("load", "query", "copy", "extract")
_THREADS = 4
"""Jobs that run concurrently; others stay PENDING. Each job may use all DuckDB threads."""


class Work(Protocol):
    """The implementation of one kind of jobs."""

    def check(self, configuration: Resource, project: str) -> None:
        """Refuse an invalid job before it is accepted.

        Args:
            configuration: the ``load``, ``query`` or ``copy`` part of the job's configuration.
            project: the project that the job runs in.

        Raises:
            BigQueryError: the error response to the call.
        """

    def run(self, task: Task) -> None:
        """Run the job. Change the destination in one ``task.writing()``, which also ends the job.

        Raises:
            BigQueryError: the job's ``errorResult``.
        """


class Jobs:
    """All jobs of a server.

    Args:
        database: the server's database.
        catalog: the catalog of the tables.
        works: implementations by kind of job.
        now: function that returns the current time, timezone-aware.
    """

    def __init__(
        self,
        database: Database,
        catalog: Catalog,
        works: Mapping[str, Work],
        now: Callable[[], dt.datetime],
    ) -> None:
        self._database, self._catalog, self._works, self._now = database, catalog, works, now
        self._log = JobLog(database)
        self._running: dict[tuple[str, str], Task] = {}
        self._lock = threading.Lock()
        self._timers: list[threading.Timer] = []
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="job")
        if count := self._log.fail_unfinished(now()):
            _log.warning("%d jobs had not ended when the server was stopped: failed", count)

    def close(self) -> None:
        """Stop running jobs. Jobs that have not begun fail when the server starts again."""
        with self._lock:
            for timer in self._timers:
                timer.cancel()
            running = list(self._running.values())
        for task in running:
            task.stop(server_stopped())
        self._pool.shutdown(wait=True, cancel_futures=True)

    def insert(self, project: str, body: Resource, *, fault: Fault | None) -> Resource:
        """Accept a job.

        Args:
            project: the project that it runs in.
            body: the ``Job`` resource.
            fault: the fault to inject; None: no fault.

        Returns:
            The job's resource.

        Raises:
            BigQueryError: the job id already exists, or the job is invalid or not supported.
        """
        configuration = body.get("configuration") or {}
        kind = _kind(configuration)
        refuse_keys(configuration, ("dryRun",), "a job")
        if kind not in self._works:
            raise not_implemented(f"{kind} jobs")
        work = self._works[kind]
        work.check(configuration[kind], project)
        task = Task(
            _new_resource(project, body, kind, self._now()),
            database=self._database,
            catalog=self._catalog,
            log=self._log,
            now=self._now,
            hangs=fault is not None and fault.action == "hang",
        )
        self._accept(task)
        accepted = task.snapshot()
        self._start(task, work, fault)
        return accepted

    def _accept(self, task: Task) -> None:
        with self._lock:
            if task.key in self._running or self._log.get(*task.key):
                raise duplicate("Job", task.resource["id"])
            self._log.add(task.resource)
            self._running[task.key] = task

    def _start(self, task: Task, work: Work, fault: Fault | None) -> None:
        if task.hangs:
            task.begin()
        elif fault is not None and fault.seconds:
            timer = threading.Timer(fault.seconds, self._submit, (task, work, fault))
            timer.daemon = True
            with self._lock:
                self._timers.append(timer)
            timer.start()
        else:
            self._submit(task, work, fault)

    def _submit(self, task: Task, work: Work, fault: Fault | None) -> None:
        self._pool.submit(self._run, task, work, fault)

    def _run(self, task: Task, work: Work, fault: Fault | None) -> None:
        task.begin()
        try:
            task.check()
            if fault is not None and fault.action == "job_error":
                raise fault.error()
            drop_expired_tables(self._database, self._catalog, self._now())
            work.run(task)
        except BigQueryError as error:
            self._fail(task, error)
        except duckdb.OutOfMemoryException as error:
            self._fail(task, BigQueryError("resourcesExceeded", f"Resources exceeded: {error}"))
        except Exception as error:  # noqa: BLE001 - every job must end
            _log.exception("job %s", task.resource["id"])
            self._fail(task, BigQueryError("jobInternalError", f"{type(error).__name__}: {error}"))
        self._finish(task)

    def _fail(self, task: Task, error: BigQueryError) -> None:
        with self._database.cursor() as cursor:
            task.end(cursor, error)

    def _finish(self, task: Task) -> None:
        task.publish()
        with self._lock:
            del self._running[task.key]

    def get(self, project: str, job_id: str) -> Resource:
        """Return a job.

        Raises:
            BigQueryError: it does not exist.
        """
        task = self.running(project, job_id)
        found = self._log.get(project, job_id) if task is None else task.snapshot()
        if found is None:
            raise not_found("Job", f"{project}:{job_id}")
        return found

    def running(self, project: str, job_id: str) -> Task | None:
        """Return an unfinished job; None if it has ended or does not exist."""
        with self._lock:
            return self._running.get((project, job_id))

    def unfinished(self, project: str, state: str) -> list[Resource]:
        """Return the jobs of a project in a state (PENDING or RUNNING), oldest first."""
        with self._lock:
            tasks = [task for key, task in self._running.items() if key[0] == project]
        found = [task.snapshot() for task in tasks]
        return [resource for resource in found if resource["status"]["state"] == state]

    def cancel(self, project: str, job_id: str) -> Resource:
        """Request the cancellation of a job. This has no effect on a job that has ended.

        Returns:
            The job's resource.

        Raises:
            BigQueryError: it does not exist.
        """
        task = self.running(project, job_id)
        if task is not None:
            error = BigQueryError(
                "stopped", "Job execution was cancelled: User requested cancellation"
            )
            task.stop(error)
            with self._lock:
                hung, task.hangs = task.hangs, False
            if hung:
                self._fail(task, error)
                self._finish(task)
        return self.get(project, job_id)


def _kind(configuration: Resource) -> str:
    kinds = [kind for kind in _KINDS if kind in configuration]
    if len(kinds) != 1:
        raise BigQueryError(
            "required",
            "Job configuration must contain exactly one job-specific configuration object (e.g.,"
            f" query, load, extract, copy): it has {kinds}",
        )
    return kinds[0]


def _new_resource(project: str, body: Resource, kind: str, now: dt.datetime) -> Resource:
    reference = body.get("jobReference") or {}
    job_id = str(reference.get("jobId") or f"job_{uuid.uuid4().hex}")
    location = str(reference.get("location") or "US")
    return {
        "kind": "bigquery#job",
        "id": f"{project}:{location}.{job_id}",
        "jobReference": {"projectId": project, "jobId": job_id, "location": location},
        "configuration": deepcopy(body["configuration"]) | {"jobType": kind.upper()},
        "status": {"state": "PENDING"},
        "statistics": {"creationTime": str(millis(now))},
        "user_email": "local@localhost",
    }
