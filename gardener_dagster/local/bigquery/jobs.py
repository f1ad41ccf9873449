"""Jobs: made by a call, run in the background, looked up, cancelled.

A job goes PENDING, RUNNING, DONE; its id is used once. Ended jobs outlive the server; the rows of a
query without a destination do not.
"""

import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from gardener_dagster.local.bigquery import load, query
from gardener_dagster.local.bigquery.catalog import Catalog, Connection, TableId
from gardener_dagster.local.bigquery.errors import BigQueryError, duplicate, not_found
from gardener_dagster.local.bigquery.faults import Faults
from gardener_dagster.local.bigquery.types import Field
from gardener_dagster.local.bigquery.writes import put

Resource = dict[str, Any]

LOCATION = "US"
_KINDS = ("load", "query", "copy")


@dataclass
class Job:
    """A job of this server."""

    project: str
    id: str
    kind: str
    configuration: Resource
    resource: Resource
    sent: bytes | None = None
    answer: query.Answer | None = None
    ended: threading.Event = field(default_factory=threading.Event)
    cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def own(self) -> Resource:
        """The configuration of its kind."""
        part: Resource = self.configuration[self.kind]
        return part


class Jobs:
    """All jobs of a server.

    Args:
        catalog: What they work on.
        faults: What goes wrong with them.
        workers: How many run at a time; further ones are PENDING.
    """

    def __init__(self, catalog: Catalog, faults: Faults, *, workers: int = 4) -> None:
        self._catalog, self._faults = catalog, faults
        self._jobs: dict[tuple[str, str], Job] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="bigquery-job")

    def close(self) -> None:
        """Cancels what runs, and waits for it."""
        for job in list(self._jobs.values()):
            job.cancelled.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def insert(self, project: str, body: Resource, sent: bytes | None = None) -> Job:
        """Makes a job and starts it.

        Raises:
            BigQueryError: Its id was used, or BigQuery would refuse it at once.
        """
        configuration: Resource = body.get("configuration") or {}
        kind = next((k for k in _KINDS if k in configuration), None)
        if kind is None:
            raise BigQueryError("invalid", f"A job's configuration has one of {', '.join(_KINDS)}")
        reference = body.get("jobReference") or {}
        job_id = reference.get("jobId") or f"job_{uuid.uuid4().hex}"
        job = self._made(project, job_id, kind, configuration, sent)
        {"load": load.check, "query": query.check, "copy": _check_copy}[kind](job.own)
        if configuration.get("dryRun"):
            self._dry_run(job)
            return job
        with self._lock:
            if (project, job_id) in self._jobs or self._kept(project, job_id):
                raise duplicate("Job", f"{project}:{LOCATION}.{job_id}")
            self._jobs[project, job_id] = job
        self._pool.submit(self._run, job)
        return job

    def _made(
        self, project: str, job_id: str, kind: str, configuration: Resource, sent: bytes | None
    ) -> Job:
        resource: Resource = {
            "kind": "bigquery#job",
            "id": f"{project}:{LOCATION}.{job_id}",
            "jobReference": {"projectId": project, "jobId": job_id, "location": LOCATION},
            "configuration": configuration | {"jobType": kind.upper()},
            "status": {"state": "PENDING"},
            "statistics": {"creationTime": self._millis()},
            "user_email": "nobody@localhost",
        }
        return Job(project, job_id, kind, configuration, resource, sent)

    def get(self, project: str, job_id: str) -> Resource:
        """A job's resource.

        Raises:
            BigQueryError: There is none.
        """
        job = self._jobs.get((project, job_id))
        resource = job.resource if job else self._kept(project, job_id)
        if resource is None:
            raise not_found("Job", f"{project}:{LOCATION}.{job_id}")
        return resource

    def wait(self, project: str, job_id: str, seconds: float) -> Job:
        """The job, ended or not within some seconds.

        Raises:
            BigQueryError: There is none whose rows are still there.
        """
        job = self._jobs.get((project, job_id))
        if job is None:
            raise not_found("Job", f"{project}:{LOCATION}.{job_id}")
        job.ended.wait(seconds)
        return job

    def list(self, project: str, states: set[str]) -> list[Resource]:
        """Jobs, the newest first, of some states or of all."""
        with self._catalog.reading() as connection:
            kept = connection.execute(
                "SELECT id, resource FROM _catalog.jobs WHERE project = ?", [project]
            ).fetchall()
        resources = {job_id: json.loads(text) for job_id, text in kept}
        resources |= {j.id: j.resource for j in list(self._jobs.values()) if j.project == project}
        found = [
            r | {"state": r["status"]["state"]}
            for r in resources.values()
            if not states or r["status"]["state"] in states
        ]
        return sorted(found, key=lambda r: -int(r["statistics"]["creationTime"]))

    def cancel(self, project: str, job_id: str) -> Resource:
        """Asks a job to stop."""
        resource = self.get(project, job_id)
        job = self._jobs.get((project, job_id))
        if job is not None and not job.ended.is_set():
            job.cancelled.set()
        return resource

    def delete(self, project: str, job_id: str) -> None:
        """Forgets an ended job."""
        self.get(project, job_id)
        self._jobs.pop((project, job_id), None)
        with self._catalog.writing() as connection:
            connection.execute(
                "DELETE FROM _catalog.jobs WHERE project = ? AND id = ?", [project, job_id]
            )

    # -- running

    def _run(self, job: Job) -> None:
        labels = " ".join(f"{k}={v}" for k, v in (job.configuration.get("labels") or {}).items())
        text = f"{job.kind} {job.id} {labels}"
        statistics = dict(job.resource["statistics"]) | {"startTime": self._millis()}
        self._set(job, "RUNNING", statistics, None)
        error: BigQueryError | None = None
        try:
            if self._faults.take(text, "job_hang"):
                job.cancelled.wait()
            if job.cancelled.is_set():
                raise BigQueryError("stopped", "Job execution was cancelled: User requested cancellation")
            if fault := self._faults.take(text, "job_error"):
                raise fault.error
            statistics |= {"load": self._load, "query": self._query, "copy": self._copy}[job.kind](job)
        except BigQueryError as caught:
            error = caught
        except BaseException as caught:
            error = BigQueryError("internalError", f"{type(caught).__name__}: {caught}")
            raise
        finally:
            statistics["endTime"] = self._millis()
            self._set(job, "DONE", statistics, error)
            self._keep(job)
            job.ended.set()

    def _set(
        self, job: Job, state: str, statistics: Resource, error: BigQueryError | None
    ) -> None:
        status: Resource = {"state": state}
        if error is not None:
            status["errorResult"] = error.proto()
            status["errors"] = [error.proto(), *error.others]
        # One assignment: a reader sees the old resource or the new one.
        job.resource = job.resource | {"status": status, "statistics": statistics}

    def _load(self, job: Job) -> Resource:
        destination = TableId.of(job.own["destinationTable"], job.project)
        done = load.run(self._catalog, job.own, destination, job.sent)
        job.sent = None
        return {
            "load": {
                "inputFiles": str(done.files),
                "inputFileBytes": str(done.bytes_read),
                "outputRows": str(done.rows),
                "outputBytes": str(done.bytes_read),
                "badRecords": str(len(done.bad)),
            },
            "totalSlotMs": str(10 * done.files),
        }

    def _query(self, job: Job) -> Resource:
        job.answer = query.run(self._catalog, job.own, job.project, dry_run=False)
        return _query_statistics(job.answer)

    def _dry_run(self, job: Job) -> None:
        job.answer = query.run(self._catalog, job.own, job.project, dry_run=True)
        self._set(job, "DONE", job.resource["statistics"] | _query_statistics(job.answer), None)
        job.ended.set()

    def _copy(self, job: Job) -> Resource:
        own = job.own
        sources = own.get("sourceTables") or [own["sourceTable"]]
        destination = TableId.of(own["destinationTable"], job.project)
        with self._catalog.writing() as connection:
            fields = self._collect(connection, [TableId.of(s, job.project) for s in sources])
            put(
                self._catalog,
                connection,
                "temp.copied",
                fields,
                destination,
                own,
                default_disposition="WRITE_EMPTY",
            )
            [rows] = connection.execute("SELECT COUNT(*) FROM temp.copied").fetchone() or (0,)
            connection.execute("DROP TABLE temp.copied")
        return {"copy": {"copiedRows": str(rows), "copiedLogicalBytes": str(rows * 64)}}

    def _collect(self, connection: Connection, sources: list[TableId]) -> list[Field]:
        fields: list[Field] = []
        for number, source in enumerate(sources):
            table = self._catalog.table(connection, source)
            what = f"SELECT * FROM {source.sql} WHERE {table.where(source.partition)}"  # noqa: S608
            if number == 0:
                fields = table.fields
                connection.execute(f"CREATE TEMP TABLE copied AS {what}")
            else:
                connection.execute(f"INSERT INTO temp.copied BY NAME {what}")
        return fields

    # -- ended jobs

    def _keep(self, job: Job) -> None:
        with self._catalog.writing() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO _catalog.jobs VALUES (?, ?, ?, ?)",
                [
                    job.project,
                    job.id,
                    int(job.resource["statistics"]["creationTime"]),
                    json.dumps(job.resource),
                ],
            )

    def _kept(self, project: str, job_id: str) -> Resource | None:
        with self._catalog.reading() as connection:
            row = connection.execute(
                "SELECT resource FROM _catalog.jobs WHERE project = ? AND id = ?",
                [project, job_id],
            ).fetchone()
        return json.loads(row[0]) if row else None

    def _millis(self) -> str:
        return str(round(self._catalog.now().timestamp() * 1000))


def _check_copy(configuration: Resource) -> None:
    if configuration.get("operationType", "COPY") != "COPY":
        raise BigQueryError("notImplemented", "This server makes plain copies only")


def _query_statistics(answer: query.Answer) -> Resource:
    own: Resource = {
        "statementType": answer.kind,
        "totalBytesProcessed": str(answer.bytes_processed),
        "totalBytesBilled": str(answer.bytes_billed),
        "totalSlotMs": str(1 + answer.bytes_processed // 100_000),
        "cacheHit": False,
        "referencedTables": [table.reference for table in answer.tables],
    }
    if answer.fields:
        own["schema"] = {"fields": answer.fields}
    if answer.affected is not None:
        own["numDmlAffectedRows"] = str(answer.affected)
    return {
        "query": own,
        "totalBytesProcessed": own["totalBytesProcessed"],
        "totalSlotMs": own["totalSlotMs"],
    }
