"""Jobs and queries over HTTP.

https://cloud.google.com/bigquery/docs/reference/rest/v2/jobs
"""

import asyncio
import threading
from collections import OrderedDict
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gardener_dagster.local.bigquery import pages
from gardener_dagster.local.bigquery.errors import BigQueryError, invalid, not_found
from gardener_dagster.local.bigquery.faults import CutResponse
from gardener_dagster.local.bigquery.partitions import expire
from gardener_dagster.local.bigquery.routes import Call, Parts, blocking, waiting
from gardener_dagster.local.bigquery.tables import Resource, TableId
from gardener_dagster.local.bigquery.task import Task

_DEFAULT_WAIT = 10_000
_LONGEST_WAIT = 60_000
_MOMENT = 0.5
"""Seconds."""

_REMEMBERED_REQUESTS = 1000
_STATES = frozenset({"pending", "running", "done"})
_NOT_OF_THE_JOB = frozenset(
    {"kind", "labels", "dryRun", "requestId", "timeoutMs", "maxResults", "formatOptions"}
    | {"location", "jobTimeoutMs", "jobCreationMode"}
)


class JobRoutes:
    """The routes.

    Args:
        parts: of the server.
    """

    def __init__(self, parts: Parts) -> None:
        self._database, self._catalog = parts.database, parts.catalog
        self._jobs, self._faults, self._now = parts.jobs, parts.faults, parts.now
        self._requests: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._lock = threading.Lock()

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            blocking("/jobs", "GET", self._list),
            blocking("/jobs", "POST", self._insert),
            waiting("/jobs/{job}", "GET", self._get),
            blocking("/jobs/{job}/cancel", "POST", self._cancel),
            blocking("/jobs/{job}/delete", "DELETE", self._delete),
            waiting("/queries", "POST", self._query),
            waiting("/queries/{job}", "GET", self._query_results),
        ]

    def _list(self, call: Call) -> Resource:
        states = frozenset(
            state.lower()
            for key, state in getattr(call.query, "multi_items", call.query.items)()
            if key == "stateFilter"
        )
        if unknown := states - _STATES:
            raise invalid(f"Invalid value for stateFilter: {sorted(unknown)[0]}")
        if call.query.get("parentJobId"):  # no job here has children
            return {"kind": "bigquery#jobList", "jobs": []}
        limit = call.number("maxResults", 50) or 50
        offset = call.number("pageToken", 0)
        found = self._jobs.list(
            call.project,
            states=states,
            limit=limit + 1,
            offset=offset,
            since=call.number("minCreationTime", 0),
            until=call.number("maxCreationTime", 2**62),
        )
        more = {"nextPageToken": str(offset + limit)} if len(found) > limit else {}
        full = call.query.get("projection", "").lower() == "full"
        jobs = [_in_list(job, full=full) for job in found[:limit]]
        return {"kind": "bigquery#jobList", "jobs": jobs} | more

    def _insert(self, call: Call) -> Resource | Response:
        fault = self._faults.of_job(call.body)
        task = self._jobs.insert(call.project, call.body, fault=fault)
        return CutResponse() if fault and fault.cuts else task.snapshot()

    async def _get(self, call: Call) -> Response:
        """The job; if it runs, as it is after a moment: clients ask again only a second later."""
        task = self._jobs.running(call.project, call.path["job"])
        if task is not None and not self._jobs.hangs(task):
            await asyncio.wait({asyncio.wrap_future(task.done)}, timeout=_MOMENT)
        return JSONResponse(await run_in_threadpool(self._jobs.get, call.project, call.path["job"]))

    def _cancel(self, call: Call) -> Resource:
        job = self._jobs.cancel(call.project, call.path["job"])
        return {"kind": "bigquery#jobCancelResponse", "job": job}

    def _delete(self, call: Call) -> None:
        self._jobs.delete(call.project, call.path["job"])

    async def _query(self, call: Call) -> Response:
        """Makes a job; its rows come along if it is quick enough."""
        job = await run_in_threadpool(self._job_of_query, call)
        if isinstance(job, Response):
            return job
        if call.body.get("dryRun"):
            return JSONResponse(_dry_answer(job))
        await self._wait(job, call.body.get("timeoutMs"))
        options = call.body.get("formatOptions") or {}
        return await run_in_threadpool(
            self._results,
            job,
            "bigquery#queryResponse",
            start=0,
            maximum=call.body.get("maxResults"),
            int64=str(options.get("useInt64Timestamp", "")).lower() == "true",
        )

    def _job_of_query(self, call: Call) -> Resource | Response:
        """The job of a ``jobs.query``; the same for a repeat with the same ``requestId``."""
        body = {key: value for key, value in call.body.items() if key not in _NOT_OF_THE_JOB}
        configuration: Resource = {"query": body}
        for key in ("labels", "dryRun", "jobTimeoutMs"):
            if call.body.get(key):
                configuration[key] = call.body[key]
        reference = {"location": call.body.get("location")}
        request = (call.project, str(call.body.get("requestId") or ""))
        with self._lock:
            known = self._requests.get(request)
            if request[1] and known:
                return self._jobs.get(call.project, known)
            job = {"configuration": configuration, "jobReference": reference}
            fault = self._faults.of_job(job)
            made = self._jobs.insert(call.project, job, fault=fault).snapshot()
            if request[1] and not call.body.get("dryRun"):
                self._requests[request] = made["jobReference"]["jobId"]
                while len(self._requests) > _REMEMBERED_REQUESTS:
                    self._requests.popitem(last=False)
        return CutResponse() if fault and fault.cuts else made

    async def _query_results(self, call: Call) -> Response:
        job = await run_in_threadpool(self._jobs.get, call.project, call.path["job"])
        await self._wait(job, call.query.get("timeoutMs"))
        maximum = call.query.get("maxResults")
        return await run_in_threadpool(
            self._results,
            job,
            "bigquery#getQueryResultsResponse",
            start=call.number("pageToken", call.number("startIndex", 0)),
            maximum=call.number("maxResults", 0) if maximum else None,
            int64=call.flag("formatOptions.useInt64Timestamp"),
        )

    async def _wait(self, job: Resource, milliseconds: Any) -> None:  # noqa: ANN401 - JSON
        """Until the job has ended, or the time is over."""
        reference = job["jobReference"]
        task: Task | None = self._jobs.running(reference["projectId"], reference["jobId"])
        if task is not None:
            time = min(int(milliseconds or _DEFAULT_WAIT), _LONGEST_WAIT) / 1000
            await asyncio.wait({asyncio.wrap_future(task.done)}, timeout=time)

    def _results(
        self, job: Resource, kind: str, *, start: int, maximum: int | None, int64: bool
    ) -> Response:
        reference = job["jobReference"]
        job = self._jobs.get(reference["projectId"], reference["jobId"])
        configuration = job["configuration"].get("query")
        if configuration is None:
            raise invalid(f"Job {job['id']} is no query job")
        if error := job["status"].get("errorResult"):
            raise BigQueryError(
                error["reason"], error["message"], location=error.get("location", "")
            )
        head: Resource = {"kind": kind, "jobReference": reference, "jobComplete": False}
        if job["status"]["state"] != "DONE":
            return JSONResponse(head)
        query = job["statistics"].get("query") or {}
        head |= {
            "jobComplete": True,
            "cacheHit": False,
            "totalBytesProcessed": query.get("totalBytesProcessed", "0"),
            "location": reference["location"],
        }
        if "numDmlAffectedRows" in query:
            head["numDmlAffectedRows"] = query["numDmlAffectedRows"]
        if query.get("statementType") != "SELECT":
            return JSONResponse(head)
        head["schema"] = query["schema"]
        rows = self._rows(job, head, start, maximum, int64=int64)
        return pages.answer(head, rows)

    def _rows(
        self, job: Resource, head: Resource, start: int, maximum: int | None, *, int64: bool
    ) -> list[str]:
        """A page of a query's result; puts its totals into the head."""
        destination = TableId.of(job["configuration"]["query"]["destinationTable"])
        expire(self._database, self._catalog, self._now())
        with self._database.reading() as connection:
            table = self._catalog.find(connection, destination)
            if table is None:
                raise not_found("Table", destination)
            more, rows = pages.page(
                connection,
                table,
                partition=destination.partition,
                fields=table.fields,
                start=start,
                maximum=maximum,
                int64_timestamp=int64,
            )
            # Into a table that had columns already, the rows have all of these.
            head["schema"] = {"fields": [field.to_json() for field in table.fields]}
        head |= more
        return rows


def _dry_answer(job: Resource) -> Resource:
    query = job["statistics"].get("query") or {}
    answer = {
        "kind": "bigquery#queryResponse",
        "jobReference": job["jobReference"],
        "jobComplete": True,
        "cacheHit": False,
        "totalBytesProcessed": query.get("totalBytesProcessed", "0"),
    }
    return answer | ({"schema": query["schema"]} if "schema" in query else {})


def _in_list(job: Resource, *, full: bool) -> Resource:
    keys = ["kind", "id", "jobReference", "status", "statistics", "user_email"]
    if full:
        keys.append("configuration")
    made = {key: job[key] for key in keys} | {"state": job["status"]["state"]}
    if "errorResult" in job["status"]:
        made["errorResult"] = job["status"]["errorResult"]
    return made
