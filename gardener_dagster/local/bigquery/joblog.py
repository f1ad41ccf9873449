"""What is kept of jobs: their resources, from the moment they are accepted."""

import datetime as dt
import json

from gardener_dagster.local.bigquery.database import Connection, Database
from gardener_dagster.local.bigquery.errors import BigQueryError
from gardener_dagster.local.bigquery.tables import Resource, millis


def stopped_server() -> BigQueryError:
    """Why a job ended that was not done when its server was stopped."""
    return BigQueryError(
        "backendError", "The local BigQuery was stopped before the job ended. Run it again."
    )


class JobLog:
    """The jobs of a server, on its database. A job is written by one thread at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, resource: Resource) -> None:
        """A job that was just accepted."""
        reference = resource["jobReference"]
        with self._database.cursor() as cursor:
            cursor.execute(
                "INSERT INTO catalog.jobs VALUES (?, ?, ?, FALSE, NULL, ?)",
                [
                    reference["projectId"],
                    reference["jobId"],
                    int(resource["statistics"]["creationTime"]),
                    json.dumps(resource),
                ],
            )

    def end(self, connection: Connection, resource: Resource) -> None:
        """A job that has ended; within the transaction of what it did."""
        reference = resource["jobReference"]
        connection.execute(
            "UPDATE catalog.jobs SET ended = TRUE, resource = ? WHERE project = ? AND id = ?",
            [json.dumps(resource), reference["projectId"], reference["jobId"]],
        )

    def get(self, project: str, job_id: str) -> Resource | None:
        """The job, ``None`` if there is none."""
        with self._database.cursor() as cursor:
            row = cursor.execute(
                "SELECT resource FROM catalog.jobs WHERE project = ? AND id = ?", [project, job_id]
            ).fetchone()
        return json.loads(row[0]) if row else None

    def delete(self, project: str, job_id: str) -> None:
        """Forgets a job."""
        with self._database.cursor() as cursor:
            cursor.execute(
                "DELETE FROM catalog.jobs WHERE project = ? AND id = ?", [project, job_id]
            )

    def newest(
        self,
        project: str,
        *,
        since: int,
        until: int,
        ended: bool | None,
        limit: int,
        offset: int,
    ) -> list[Resource]:
        """A project's jobs, newest first.

        Args:
            project: its id.
            since: created at or after, in milliseconds.
            until: created at or before, in milliseconds.
            ended: only those that have, or have not.
            limit: so many at most.
            offset: without so many of the first.
        """
        with self._database.cursor() as cursor:
            rows = cursor.execute(
                "SELECT resource FROM catalog.jobs WHERE project = ? AND created BETWEEN ? AND ?"
                " AND (? IS NULL OR ended = ?) ORDER BY created DESC, rowid DESC LIMIT ? OFFSET ?",
                [project, since, until, ended, ended, limit, offset],
            ).fetchall()
        return [json.loads(text) for (text,) in rows]

    def fail_unfinished(self, now: dt.datetime) -> int:
        """Ends the jobs of a server that was stopped: they have changed nothing.

        Returns:
            How many.
        """
        with self._database.writing() as connection:
            rows = connection.execute(
                "SELECT resource FROM catalog.jobs WHERE NOT ended"
            ).fetchall()
            for (text,) in rows:
                resource = json.loads(text)
                resource["status"] = stopped_server().job_status()
                resource["statistics"].setdefault("startTime", str(millis(now)))
                resource["statistics"]["endTime"] = str(millis(now))
                self.end(connection, resource)
        return len(rows)
