"""The REST API's routes: https://cloud.google.com/bigquery/docs/reference/rest."""

import json
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gardener_dagster.local.bigquery.catalog import Catalog, Table, TableId
from gardener_dagster.local.bigquery.errors import BigQueryError, not_found
from gardener_dagster.local.bigquery.faults import Faults
from gardener_dagster.local.bigquery.jobs import LOCATION, Job, Jobs
from gardener_dagster.local.bigquery.types import Field, quote, row

Resource = dict[str, Any]
Handler = Callable[[Request], Awaitable[Response]]

_BASE = "/bigquery/v2/projects/{project}"
_PAGE = 10_000
_LONGEST_WAIT = 10.0


class CutConnectionError(Exception):
    """The server drops the connection without an answer."""


def create_app(catalog: Catalog, *, faults_enabled: bool = False, workers: int = 4) -> Starlette:
    """The server.

    Args:
        catalog: Its data; closed with the app.
        faults_enabled: Whether tests may make things go wrong.
        workers: Jobs that run at a time.
    """
    faults = Faults()
    jobs = Jobs(catalog, faults, workers=workers)
    api = _Api(catalog, jobs, faults)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(jobs.close)
        catalog.close()

    def route(path: str, method: str, call: Callable[..., Any]) -> Route:
        return Route(_BASE + path, api.handler(call), methods=[method])

    dataset, table, job = "/datasets/{dataset}", "/datasets/{dataset}/tables/{table}", "/jobs/{job}"
    routes = [
        Route("/alive", _alive),
        route("/datasets", "GET", api.list_datasets),
        route("/datasets", "POST", api.insert_dataset),
        route(dataset, "GET", api.get_dataset),
        route(dataset, "PATCH", api.patch_dataset),
        route(dataset, "PUT", api.patch_dataset),
        route(dataset, "DELETE", api.delete_dataset),
        route(f"{dataset}/tables", "GET", api.list_tables),
        route(f"{dataset}/tables", "POST", api.insert_table),
        route(table, "GET", api.get_table),
        route(table, "PATCH", api.patch_table),
        route(table, "PUT", api.patch_table),
        route(table, "DELETE", api.delete_table),
        route(f"{table}/data", "GET", api.list_rows),
        route("/jobs", "GET", api.list_jobs),
        route("/jobs", "POST", api.insert_job),
        route(job, "GET", api.get_job),
        route(f"{job}/cancel", "POST", api.cancel_job),
        route(f"{job}/delete", "DELETE", api.delete_job),
        route("/queries", "POST", api.query),
        route("/queries/{job}", "GET", api.query_results),
        Route("/upload" + _BASE + "/jobs", api.handler(api.upload), methods=["POST", "PUT"]),
    ]
    if faults_enabled:
        routes.append(Route("/faults", api.faults_route, methods=["GET", "POST", "DELETE"]))
    return Starlette(routes=routes, lifespan=lifespan)


async def _alive(request: Request) -> Response:
    return Response("ok\n")


class _Call:
    """One call: its parameters, read before any thread works on it."""

    def __init__(self, request: Request, content: bytes) -> None:
        self.path, self.query = request.path_params, request.query_params
        self.content, self.headers = content, request.headers
        self.url, self.method = request.url, request.method

    @property
    def body(self) -> Resource:
        if not self.content:
            return {}
        try:
            body: Resource = json.loads(self.content)
        except ValueError as error:
            raise BigQueryError("invalid", f"The request's body is not JSON: {error}") from error
        return body

    @property
    def project(self) -> str:
        return str(self.path["project"])

    @property
    def table(self) -> TableId:
        reference = {"datasetId": self.path["dataset"], "tableId": self.path["table"]}
        return TableId.of(reference, self.project)


class _Api:
    def __init__(self, catalog: Catalog, jobs: Jobs, faults: Faults) -> None:
        self._catalog, self._jobs, self._faults = catalog, jobs, faults
        self._uploads: dict[str, Resource] = {}

    def handler(self, call: Callable[[_Call], Any]) -> Handler:
        async def handle(request: Request) -> Response:
            text = f"{request.method} {request.url.path}"
            try:
                content = await request.body()
            except ClientDisconnect:
                return Response(status_code=400)
            try:
                if fault := self._faults.take(text, "error", "cut"):
                    if fault.action == "cut":
                        raise CutConnectionError
                    raise fault.error
                answer = await run_in_threadpool(call, _Call(request, content))
                if self._faults.take(text, "cut_after"):
                    raise CutConnectionError
            except BigQueryError as error:
                return JSONResponse(error.body(), status_code=error.code)
            if isinstance(answer, Response):
                return answer
            return Response(status_code=204) if answer is None else JSONResponse(answer)

        return handle

    async def faults_route(self, request: Request) -> Response:
        try:
            if request.method == "POST":
                self._faults.add(await request.json())
            elif request.method == "DELETE":
                self._faults.clear()
        except (BigQueryError, TypeError, re.error) as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        return JSONResponse([vars(fault) for fault in self._faults.pending])

    # -- datasets

    def list_datasets(self, call: _Call) -> Resource:
        with self._catalog.reading() as connection:
            found = self._catalog.datasets(connection, call.project)
        return {"kind": "bigquery#datasetList", "datasets": found}

    def insert_dataset(self, call: _Call) -> Resource:
        with self._catalog.writing() as connection:
            return self._catalog.create_dataset(connection, call.project, call.body)

    def get_dataset(self, call: _Call) -> Resource:
        with self._catalog.reading() as connection:
            return self._catalog.dataset(connection, call.project, call.path["dataset"])

    def patch_dataset(self, call: _Call) -> Resource:
        with self._catalog.writing() as connection:
            return self._catalog.patch_dataset(
                connection, call.project, call.path["dataset"], call.body
            )

    def delete_dataset(self, call: _Call) -> None:
        contents = call.query.get("deleteContents", "").lower() == "true"
        with self._catalog.writing() as connection:
            self._catalog.delete_dataset(
                connection, call.project, call.path["dataset"], contents=contents
            )

    # -- tables

    def list_tables(self, call: _Call) -> Resource:
        with self._catalog.reading() as connection:
            self._catalog.dataset(connection, call.project, call.path["dataset"])
            found = self._catalog.tables(connection, call.project, call.path["dataset"])
        tables = [t.resource for t in found]
        return {"kind": "bigquery#tableList", "tables": tables, "totalItems": len(tables)}

    def insert_table(self, call: _Call) -> Resource:
        reference = dict(call.body["tableReference"]) | {"datasetId": call.path["dataset"]}
        with self._catalog.writing() as connection:
            table = self._catalog.create_table(
                connection, TableId.of(reference, call.project), call.body
            )
        return table.resource | {"numRows": "0", "numBytes": "0"}

    def get_table(self, call: _Call) -> Resource:
        self._expire(call.table)
        with self._catalog.reading() as connection:
            return self._catalog.described(connection, call.table)

    def patch_table(self, call: _Call) -> Resource:
        with self._catalog.writing() as connection:
            self._catalog.patch_table(connection, call.table, call.body)
            return self._catalog.described(connection, call.table)

    def delete_table(self, call: _Call) -> None:
        with self._catalog.writing() as connection:
            self._catalog.delete_table(connection, call.table)

    def list_rows(self, call: _Call) -> Resource:
        with self._catalog.reading() as connection:
            table = self._catalog.table(connection, call.table)
            fields = _selected(table, call.query.get("selectedFields"))
            start, most = _page(call)
            where = table.where(call.table.partition)
            [total] = connection.execute(
                f"SELECT COUNT(*) FROM {table.id.sql} WHERE {where}"  # noqa: S608
            ).fetchone() or (0,)
            names = ", ".join(quote(f["name"]) for f in fields)
            values = connection.execute(
                f"SELECT {names} FROM {table.id.sql} WHERE {where} ORDER BY rowid"  # noqa: S608
                f" LIMIT {most} OFFSET {start}"
            ).fetchall()
        return {"kind": "bigquery#tableDataList"} | _rows(call, fields, values, start, total)

    def _expire(self, table: TableId) -> None:
        with self._catalog.reading() as connection:
            found = self._catalog.find(connection, table)
        if found and (found.resource.get("timePartitioning") or {}).get("expirationMs"):
            with self._catalog.writing() as connection:
                self._catalog.expire(connection, found)

    # -- jobs

    def list_jobs(self, call: _Call) -> Resource:
        states = {state.upper() for state in call.query.getlist("stateFilter")}
        start, most = _page(call)
        found = self._jobs.list(call.project, states)
        answer: Resource = {"kind": "bigquery#jobList", "jobs": found[start : start + most]}
        if start + most < len(found):
            answer["nextPageToken"] = str(start + most)
        return answer

    def insert_job(self, call: _Call) -> Resource:
        return self._jobs.insert(call.project, call.body).resource

    def get_job(self, call: _Call) -> Resource:
        return self._jobs.get(call.project, call.path["job"])

    def cancel_job(self, call: _Call) -> Resource:
        job = self._jobs.cancel(call.project, call.path["job"])
        return {"kind": "bigquery#jobCancelResponse", "job": job}

    def delete_job(self, call: _Call) -> None:
        self._jobs.delete(call.project, call.path["job"])

    def query(self, call: _Call) -> Resource:
        """``jobs.query``: makes a job, and answers with its rows if it is quick."""
        body = call.body
        own = {k: v for k, v in body.items() if k not in ("labels", "dryRun", "requestId")}
        configuration: Resource = {"query": own, "labels": body.get("labels") or {}}
        if body.get("dryRun"):
            configuration["dryRun"] = True
        job = self._jobs.insert(call.project, {"configuration": configuration})
        job.ended.wait(min(float(body.get("timeoutMs", 10_000)) / 1000, _LONGEST_WAIT))
        return self._results(job, call, "bigquery#queryResponse")

    def query_results(self, call: _Call) -> Resource:
        seconds = min(float(call.query.get("timeoutMs", 10_000)) / 1000, _LONGEST_WAIT)
        job = self._jobs.wait(call.project, call.path["job"], seconds)
        return self._results(job, call, "bigquery#getQueryResultsResponse")

    def _results(self, job: Job, call: _Call, kind: str) -> Resource:
        reference = {"projectId": job.project, "jobId": job.id, "location": LOCATION}
        answer: Resource = {"kind": kind, "jobReference": reference, "jobComplete": False}
        if not job.ended.is_set():
            return answer
        status = job.resource["status"]
        if error := status.get("errorResult"):
            raise BigQueryError(
                error["reason"], error["message"], location=error.get("location", "")
            )
        found = job.answer
        if found is None:
            raise not_found("Job", f"{job.project}:{LOCATION}.{job.id} is no query")
        start, most = _page(call)
        values = found.rows[start : start + most]
        if found.destination is not None:
            values = self._stored(found.destination, found.fields, start, most)
        answer |= {
            "jobComplete": True,
            "schema": {"fields": found.fields},
            "totalBytesProcessed": str(found.bytes_processed),
            "cacheHit": False,
        }
        if found.affected is not None:
            answer["numDmlAffectedRows"] = str(found.affected)
        return answer | _rows(call, found.fields, values, start, found.row_count)

    def _stored(
        self, table: TableId, fields: list[Field], start: int, most: int
    ) -> list[tuple[Any, ...]]:
        if not most:
            return []
        with self._catalog.reading() as connection:
            where = self._catalog.table(connection, table).where(table.partition)
            names = ", ".join(quote(f["name"]) for f in fields)
            return connection.execute(
                f"SELECT {names} FROM {table.whole.sql} WHERE {where} ORDER BY rowid"  # noqa: S608
                f" LIMIT {most} OFFSET {start}"
            ).fetchall()

    # -- uploads: https://cloud.google.com/bigquery/docs/reference/api-uploads

    def upload(self, call: _Call) -> Any:  # noqa: ANN401 - a resource or a response
        match call.query.get("uploadType"):
            case "multipart":
                body, sent = _parts(call)
                return self._jobs.insert(call.project, body, sent).resource
            case "resumable" if "upload_id" not in call.query:
                upload = uuid.uuid4().hex
                self._uploads[upload] = {"body": call.body, "sent": b""}
                url = call.url.include_query_params(upload_id=upload)
                return Response(headers={"Location": str(url)})
            case "resumable":
                return self._resumed(call)
        raise BigQueryError("invalid", "uploadType: expected multipart or resumable")

    def _resumed(self, call: _Call) -> Any:  # noqa: ANN401
        upload = self._uploads.get(call.query["upload_id"])
        if upload is None:
            raise not_found("Upload", call.query["upload_id"])
        upload["sent"] += call.content
        last = re.fullmatch(r"bytes (?:\*|\d+-\d+)/(\d+|\*)", call.headers.get("content-range", ""))
        if last and last[1] == "*":
            end = f"bytes=0-{len(upload['sent']) - 1}"
            return Response(status_code=308, headers={"Range": end})
        del self._uploads[call.query["upload_id"]]
        return self._jobs.insert(call.project, upload["body"], upload["sent"]).resource


def _parts(call: _Call) -> tuple[Resource, bytes]:
    boundary = re.search(r'boundary="?([^";]+)', call.headers.get("content-type", ""))
    if boundary is None:
        raise BigQueryError("invalid", "A multipart upload needs a boundary")
    parts = call.content.split(b"--" + boundary[1].encode())[1:-1]
    bodies = [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in parts]
    return json.loads(bodies[0]), bodies[1]


def _page(call: _Call) -> tuple[int, int]:
    token = call.query.get("pageToken") or call.query.get("startIndex") or "0"
    most = call.query.get("maxResults")
    return int(token), min(_PAGE, int(most)) if most else _PAGE


def _selected(table: Table, names: str | None) -> list[Field]:
    if not names:
        return table.fields
    wanted = {name.lower() for name in names.split(",")}
    return [f for f in table.fields if f["name"].lower() in wanted]


def _rows(
    call: _Call, fields: list[Field], values: list[tuple[Any, ...]], start: int, total: int
) -> Resource:
    options = (call.body.get("formatOptions") or {}) if call.method == "POST" else {}
    int64 = str(
        call.query.get("formatOptions.useInt64Timestamp", options.get("useInt64Timestamp", ""))
    )
    encoded = [row(v, fields, int64_timestamp=int64.lower() == "true") for v in values]
    answer: Resource = {"totalRows": str(total), "rows": encoded}
    if start + len(values) < total and values:
        answer["pageToken"] = str(start + len(values))
    return answer
