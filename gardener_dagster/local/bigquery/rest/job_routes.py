"""Routes of jobs and of query results.

https://cloud.google.com/bigquery/docs/reference/rest/v2/jobs
"""

from concurrent.futures import wait

from starlette.routing import Route

from gardener_dagster.local.bigquery.catalog.partitions import drop_expired_tables
from gardener_dagster.local.bigquery.catalog.schema import to_json
from gardener_dagster.local.bigquery.catalog.table import Resource, TableId
from gardener_dagster.local.bigquery.errors import (
    BigQueryError,
    invalid,
    not_found,
    not_implemented,
)
from gardener_dagster.local.bigquery.rest.calls import Call, Parts, route
from gardener_dagster.local.bigquery.rest.result_rows import result_page

_RESULTS_TIMEOUT_MS = 5_000
"""Maximum wait of ``getQueryResults`` for the end of a job; clients then call again."""

_GET_TIMEOUT_SECONDS = 0.5


class JobRoutes:
    """The routes of jobs and of query results.

    Args:
        parts: the server's components.
    """

    def __init__(self, parts: Parts) -> None:
        self._database, self._catalog = parts.database, parts.catalog
        self._jobs, self._faults, self._now = parts.jobs, parts.faults, parts.now

    def routes(self) -> list[Route]:
        """Return all routes."""
        return [
            route("/jobs", "GET", self._list),
            route("/jobs", "POST", self._insert),
            route("/jobs/{job}", "GET", self._get),
            route("/jobs/{job}/cancel", "POST", self._cancel),
            route("/queries/{job}", "GET", self._query_results),
        ]

    def _insert(self, call: Call) -> Resource:
        fault = self._faults.of_job(call.body)
        return self._jobs.insert(call.project, call.body, fault=fault)

    def _list(self, call: Call) -> Resource:
        """Return all PENDING or all RUNNING jobs, on one page."""
        state = call.query.get("stateFilter", "").upper()
        if state not in ("PENDING", "RUNNING"):
            raise not_implemented("jobs.list with another stateFilter than pending or running")
        found = self._jobs.unfinished(call.project, state)
        jobs = [job | {"state": state} for job in found]
        return {"kind": "bigquery#jobList", "jobs": jobs}

    def _get(self, call: Call) -> Resource:
        """Return the job. Wait briefly for its end first, because clients poll once a second."""
        self._wait(call, _GET_TIMEOUT_SECONDS)
        return self._jobs.get(call.project, call.path["job"])

    def _cancel(self, call: Call) -> Resource:
        job = self._jobs.cancel(call.project, call.path["job"])
        return {"kind": "bigquery#jobCancelResponse", "job": job}

    def _wait(self, call: Call, seconds: float) -> None:
        """Wait until the job has ended or the timeout expires. Do not wait for a job that hangs."""
        task = self._jobs.running(call.project, call.path["job"])
        if task is not None and not task.hangs:
            wait([task.done], timeout=seconds)

    def _query_results(self, call: Call) -> Resource:
        timeout = call.number("timeoutMs", _RESULTS_TIMEOUT_MS)
        self._wait(call, min(timeout, _RESULTS_TIMEOUT_MS) / 1000)
        job = self._jobs.get(call.project, call.path["job"])
        if "query" not in job["configuration"]:
            raise invalid(f"Job {job['id']} is not a query job")
        if error := job["status"].get("errorResult"):
            raise BigQueryError(
                error["reason"], error["message"], location=error.get("location", "")
            )
        head: Resource = {
            "kind": "bigquery#getQueryResultsResponse",
            "jobReference": job["jobReference"],
            "jobComplete": job["status"]["state"] == "DONE",
        }
        if not head["jobComplete"]:
            return head
        processed = job["statistics"]["totalBytesProcessed"]
        return head | {"cacheHit": False, "totalBytesProcessed": processed} | self._page(job, call)

    def _page(self, job: Resource, call: Call) -> Resource:
        destination = TableId.of(job["configuration"]["query"]["destinationTable"])
        start = call.number("pageToken", call.number("startIndex", 0))
        maximum = call.number("maxResults", 0) if call.query.get("maxResults") else None
        drop_expired_tables(self._database, self._catalog, self._now())
        with self._database.reading() as connection:
            table = self._catalog.find(connection, destination)
            if table is None:
                raise not_found("Table", destination)
            page = result_page(
                connection, table, destination.partition, start=start, maximum=maximum
            )
        return page | {"schema": {"fields": to_json(table.fields)}}
