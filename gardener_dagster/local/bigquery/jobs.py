"""Jobs: accepted, PENDING, RUNNING, DONE. What they do is in ``load``, ``query`` and ``copying``.

https://cloud.google.com/bigquery/docs/reference/rest/v2/Job. A job runs in a thread of a small
pool. Its end is written in the transaction of what it did, so a killed server has done all of a job
and knows it, or nothing.
"""

import datetime as dt
import logging
import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Protocol

import duckdb

from gardener_dagster.local.bigquery.catalog import Catalog
from gardener_dagster.local.bigquery.database import Database
from gardener_dagster.local.bigquery.errors import BigQueryError, duplicate, invalid, not_found
from gardener_dagster.local.bigquery.faults import JobFault
from gardener_dagster.local.bigquery.joblog import JobLog, stopped_server
from gardener_dagster.local.bigquery.partitions import expire
from gardener_dagster.local.bigquery.tables import Resource, millis
from gardener_dagster.local.bigquery.task import Task

_log = logging.getLogger(__name__)

KINDS = ("load", "query", "copy", "extract")
_PARALLEL = 4
"""Jobs that run at once; more wait as PENDING. DuckDB itself uses all its threads for one."""


class Work(Protocol):
    """What jobs of one type do."""

    def check(self, configuration: Resource, project: str) -> None:
        """Refuses what cannot become a job; ``configuration`` is that of the type.

        Raises:
            BigQueryError: the answer to the call.
        """

    def run(self, task: Task) -> None:
        """Does it, all in one ``task.writing()``, if it writes at all.

        Raises:
            BigQueryError: becomes the job's ``errorResult``.
        """


class Jobs:
    """All jobs of a server.

    Args:
        database: of everything.
        catalog: of the tables.
        works: by type of job.
        now: the time, aware.
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
        self._hanging: set[Task] = set()
        self._timers: list[threading.Timer] = []
        self._pool = ThreadPoolExecutor(_PARALLEL, thread_name_prefix="job")
        if count := self._log.fail_unfinished(now()):
            _log.warning("%d jobs had not ended when the server was stopped: failed", count)

    def close(self) -> None:
        """Ends what runs; what has not begun is found, and failed, at the next start."""
        with self._lock:
            for timer in self._timers:
                timer.cancel()
            running = list(self._running.values())
        for task in running:
            task.stop(stopped_server())
        self._pool.shutdown(wait=True, cancel_futures=True)

    def insert(
        self,
        project: str,
        body: Resource,
        *,
        media: Path | None = None,
        fault: JobFault | None = None,
    ) -> Task:
        """Accepts a job.

        Args:
            project: that it runs in.
            body: its ``Job`` resource.
            media: data that came with it; deleted when the job has ended.
            fault: what goes wrong with it.

        Raises:
            BigQueryError: the id is taken, or it can be no job.
        """
        configuration = body.get("configuration") or {}
        kind = _kind(configuration)
        work = self._works.get(kind)
        if work is None:
            raise BigQueryError("notImplemented", f"The local BigQuery does no {kind} jobs")
        work.check(configuration[kind], project)
        resource = _new_resource(project, body, kind, self._now())
        task = Task(
            resource,
            database=self._database,
            catalog=self._catalog,
            log=self._log,
            now=self._now,
            media=media,
        )
        if task.dry_run:
            work.run(task)
            del resource["jobReference"]["jobId"]
            resource["status"] = {"state": "DONE"}
            task.done.set_result(None)
            return task
        self._accept(task)
        self._start(task, work, fault)
        return task

    def _accept(self, task: Task) -> None:
        job_id = str(task.resource["jobReference"]["jobId"])
        key = (task.project, job_id)
        with self._lock:
            if key in self._running or self._log.get(*key):
                reference = task.resource["jobReference"]
                raise duplicate("Job", f"{task.project}:{reference['location']}.{job_id}")
            self._log.add(task.resource)
            self._running[key] = task

    def _start(self, task: Task, work: Work, fault: JobFault | None) -> None:
        if fault is not None and fault.hangs:
            self._runs(task)
            with self._lock:
                self._hanging.add(task)  # until it is cancelled
            return
        if fault is not None and fault.seconds:
            timer = threading.Timer(fault.seconds, self._submit, (task, work, fault))
            timer.daemon = True
            with self._lock:
                self._timers.append(timer)
            timer.start()
            return
        self._submit(task, work, fault)

    def _submit(self, task: Task, work: Work, fault: JobFault | None) -> None:
        self._pool.submit(self._do, task, work, fault)

    def _runs(self, task: Task) -> None:
        with task.lock:
            task.resource["status"] = {"state": "RUNNING"}
            task.statistics["startTime"] = str(millis(self._now()))

    def _do(self, task: Task, work: Work, fault: JobFault | None) -> None:
        self._runs(task)
        try:
            task.check()
            if fault is not None and fault.error is not None:
                raise fault.error
            expire(self._database, self._catalog, self._now())
            work.run(task)
        except BigQueryError as error:
            self._fail(task, error)
        except duckdb.OutOfMemoryException as error:
            self._fail(task, BigQueryError("resourcesExceeded", f"Resources exceeded: {error}"))
        except Exception as error:  # noqa: BLE001 - shown in the job and in the log
            # Whatever it is, the job must not stay RUNNING for ever; the log has the whole of it.
            _log.exception("job %s", task.resource["id"])
            self._fail(task, BigQueryError("jobInternalError", f"{type(error).__name__}: {error}"))
        self._finish(task)

    def _fail(self, task: Task, error: BigQueryError) -> None:
        with self._database.cursor() as cursor:
            task.end(cursor, error)

    def _finish(self, task: Task) -> None:
        if task.media is not None:
            task.media.unlink(missing_ok=True)
        task.publish()
        with self._lock:
            del self._running[task.project, str(task.resource["jobReference"]["jobId"])]

    # -- looking at jobs

    def get(self, project: str, job_id: str) -> Resource:
        """A job.

        Raises:
            BigQueryError: there is none.
        """
        with self._lock:
            task = self._running.get((project, job_id))
        if task is not None:
            return task.snapshot()
        found = self._log.get(project, job_id)
        if found is None:
            raise not_found("Job", f"{project}:{job_id}")
        return found

    def running(self, project: str, job_id: str) -> Task | None:
        """The job if it has not ended."""
        with self._lock:
            return self._running.get((project, job_id))

    def hangs(self, task: Task) -> bool:
        """Whether a fault keeps the job from ending."""
        with self._lock:
            return task in self._hanging

    def list(
        self,
        project: str,
        *,
        states: frozenset[str],
        limit: int,
        offset: int = 0,
        since: int = 0,
        until: int = 2**62,
    ) -> list[Resource]:
        """A project's jobs, newest first.

        Args:
            project: its id.
            states: of ``pending``, ``running``, ``done``; none: all.
            limit: so many at most.
            offset: without so many of the first.
            since: created at or after, in milliseconds.
            until: created at or before, in milliseconds.
        """
        ended = None if {"done"} < states or not states else "done" in states
        found = self._log.newest(
            project, since=since, until=until, ended=ended, limit=limit, offset=offset
        )
        with self._lock:
            running = {key[1]: task for key, task in self._running.items() if key[0] == project}
        names = (job["jobReference"]["jobId"] for job in found)
        now = [
            running[name].snapshot() if name in running else job
            for name, job in zip(names, found, strict=True)
        ]
        return [job for job in now if not states or job["status"]["state"].lower() in states]

    def cancel(self, project: str, job_id: str) -> Resource:
        """Asks a job to stop; one that has ended stays as it is.

        Raises:
            BigQueryError: there is no such job.
        """
        task = self.running(project, job_id)
        if task is not None:
            error = BigQueryError(
                "stopped", "Job execution was cancelled: User requested cancellation"
            )
            task.stop(error)
            with self._lock:
                hangs = task in self._hanging
                self._hanging.discard(task)
            if hangs:
                self._fail(task, error)
                self._finish(task)
        return self.get(project, job_id)

    def delete(self, project: str, job_id: str) -> None:
        """Forgets a job that has ended.

        Raises:
            BigQueryError: there is none, or it runs.
        """
        if self.get(project, job_id)["status"]["state"] != "DONE":
            raise invalid(f"Job {project}:{job_id} has not ended")
        self._log.delete(project, job_id)


def _kind(configuration: Resource) -> str:
    kinds = [kind for kind in KINDS if kind in configuration]
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
