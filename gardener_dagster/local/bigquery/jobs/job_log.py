"""The jobs' resources in the database, from the moment the jobs are accepted."""

import datetime as dt
import json

from gardener_dagster.local.bigquery.catalog.database import Connection, Database
from gardener_dagster.local.bigquery.catalog.table import Resource, millis
from gardener_dagster.local.bigquery.errors import BigQueryError


def server_stopped() -> BigQueryError:
    """Make the error of a job that had not ended when its server stopped."""
    return BigQueryError(
        "backendError", "The local BigQuery was stopped before the job ended. Run it again."
    )


class JobLog:
    """Reads and writes job resources. One thread at a time writes each job."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, resource: Resource) -> None:
        """Add a job that was just accepted."""
        reference = resource["jobReference"]
        with self._database.cursor() as cursor:
            cursor.execute(
                "INSERT INTO catalog.jobs (project, id, ended, resource) VALUES (?, ?, FALSE, ?)",
                [reference["projectId"], reference["jobId"], json.dumps(resource)],
            )

    def end(self, connection: Connection, resource: Resource) -> None:
        """Store the final state of a job, in the transaction that writes its rows."""
        reference = resource["jobReference"]
        connection.execute(
            "UPDATE catalog.jobs SET ended = TRUE, resource = ? WHERE project = ? AND id = ?",
            [json.dumps(resource), reference["projectId"], reference["jobId"]],
        )

    def get(self, project: str, job_id: str) -> Resource | None:
        """Return a job; None if it does not exist."""
        with self._database.cursor() as cursor:
            row = cursor.execute(
                "SELECT resource FROM catalog.jobs WHERE project = ? AND id = ?", [project, job_id]
            ).fetchone()
        return json.loads(row[0]) if row else None

    def fail_unfinished(self, now: dt.datetime) -> int:
        """Fail the jobs that a stopped server left unfinished. They have changed no table.

        Returns:
            The number of jobs.
        """
        with self._database.writing() as connection:
            rows = connection.execute(
                "SELECT resource FROM catalog.jobs WHERE NOT ended"
            ).fetchall()
            for (text,) in rows:
                resource = json.loads(text)
                resource["status"] = server_stopped().job_status()
                resource["statistics"].setdefault("startTime", str(millis(now)))
                resource["statistics"]["endTime"] = str(millis(now))
                self.end(connection, resource)
        return len(rows)
