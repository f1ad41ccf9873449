"""Google's services and parsers that take no time: whatever is measured beside them is our own.

One process, over HTTP: of BigQuery and Cloud Storage as much as the gardener asks, answered at
once; and a parser that says of each job that it is done. Nothing fails, no row exists: a partition
is a number of rows. A question that this does not know is a 501, never a guess.
"""

import argparse
import http.client
import json
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

ROWS = 1_000
"""In each partition that is loaded."""
KEPT_JOBS = 5_000
"""A client looks at its jobs within seconds."""
PAUSE_SECONDS = 0.2
"""Of the parser, when there is nothing to do. A real one waits ten."""
BUCKET = "archive-measurement-lab"
_ARCHIVED = "2020-01-01T00:00:00.000Z"  # before any parse: no archive is late

_COUNT = re.compile(r"SELECT (\d+) AS part, .*?\nFROM `[^.]+\.([^`]+)`")
_RAW = re.compile(r"FROM `[^.]+\.([^`]+)` AS r\b")
_COMPARED = (
    "row_count", "keyless", "duplicates", "ids",
    "published", "published_keyless", "published_ids",
    "added", "removed", "kept",
)  # fmt: skip
_TABLE = re.compile(r"FROM `[^.]+\.([^`]+)`")
Fields = Sequence[tuple[str, str]]


@dataclass
class BigQuery:
    """Tables, the rows of their partitions by ``dataset.table$date``, and the last jobs."""

    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    jobs: OrderedDict[str, dict[str, Any]] = field(default_factory=OrderedDict)
    answers: OrderedDict[str, dict[str, Any]] = field(default_factory=OrderedDict)

    # -- tables

    async def get_table(self, request: Request) -> Response:
        table = self.tables.get(_table_id(request))
        return JSONResponse(table) if table else _not_found("Not found: Table")

    async def make_table(self, request: Request) -> Response:
        body = await request.json()
        reference = body["tableReference"]
        table_id = f"{reference['datasetId']}.{reference['tableId']}"
        body |= {"kind": "bigquery#table", "etag": "0", "type": "TABLE", "id": table_id}
        return JSONResponse(self.tables.setdefault(table_id, body))

    async def delete_table(self, request: Request) -> Response:
        gone = self.rows.pop(_table_id(request), None)
        return Response(status_code=204) if gone is not None else _not_found("Not found: Table")

    async def make_dataset(self, request: Request) -> Response:
        return JSONResponse(await request.json())

    # -- jobs

    async def make_job(self, request: Request) -> Response:
        job = await request.json()
        job_id = job["jobReference"]["jobId"]
        if job_id in self.jobs:
            return _error(409, "duplicate", f"Already Exists: Job {job_id}")
        now = str(round(time.time() * 1000))
        statistics: dict[str, Any] = dict.fromkeys(("creationTime", "startTime", "endTime"), now)
        configuration = job["configuration"]
        if load := configuration.get("load"):
            self.rows[_partition(load["destinationTable"])] = ROWS
            statistics["load"] = {
                "inputFiles": "1", "inputFileBytes": str(ROWS * 100),
                "outputRows": str(ROWS), "outputBytes": str(ROWS * 100),
            }  # fmt: skip
        elif copy := configuration.get("copy"):
            source = copy.get("sourceTable") or copy["sourceTables"][0]
            self.rows[_partition(copy["destinationTable"])] = self.rows[_partition(source)]
        else:
            query = configuration["query"]
            statistics |= {"totalSlotMs": "1", "query": {"totalBytesBilled": "0"}}
            answer = self._answer(query)
            if answer is None:
                return _error(501, "notImplemented", f"an unknown query: {query['query']}")
            self.answers[job_id] = answer
        job["jobReference"].setdefault("location", "US")
        job |= {"kind": "bigquery#job", "status": {"state": "DONE"}, "statistics": statistics}
        job |= {"id": job_id, "selfLink": ""}
        self.jobs[job_id] = job
        for kept in (self.jobs, self.answers):
            while len(kept) > KEPT_JOBS:
                kept.popitem(last=False)
        return JSONResponse(job)

    async def get_job(self, request: Request) -> Response:
        job = self.jobs.get(request.path_params["job"])
        return JSONResponse(job) if job else _not_found("Not found: Job")

    async def get_answer(self, request: Request) -> Response:
        job_id = request.path_params["job"]
        answer = self.answers.get(job_id)
        if answer is None:
            return _not_found("Not found: Job")
        return JSONResponse(answer | {"jobReference": self.jobs[job_id]["jobReference"]})

    def _answer(self, query: dict[str, Any]) -> dict[str, Any] | None:
        """What the queries in ``warehouse/sql`` return of partitions without duplicates."""
        sql = query["query"]
        values = {
            p["name"]: p["parameterValue"]["value"].replace("-", "")
            for p in query.get("queryParameters", ())
        }
        numbers: Fields
        if query.get("destinationTable"):  # a join; there are no duplicates to rewrite
            [raw] = _RAW.findall(sql)
            rows = self.rows.get(f"{raw}${values['date']}", 0)
            self.rows[_partition(query["destinationTable"])] = rows
            return _result((), ())
        if counts := _COUNT.findall(sql):
            numbers = [("part", "INTEGER"), ("row_count", "INTEGER")]
            found = [(i, self.rows.get(f"{table}${values[f'date_{i}']}", 0)) for i, table in counts]
            return _result(numbers, found)
        [table, *others] = _TABLE.findall(sql)
        rows = self.rows.get(f"{table}${values['date']}", 0)
        if "AS published_ids" in sql:  # all keys of both are the same
            published = sum(self.rows.get(f"{other}${values['date']}", 0) for other in others)
            numbers = [(name, "INTEGER") for name in _COMPARED]
            same = (rows, 0, 0, rows, published, 0, published, rows - published, 0, published)
            return _result(numbers, [same])
        if "AS keyless" in sql:
            numbers = [(name, "INTEGER") for name in ("row_count", "keyless", "duplicates")]
            return _result(numbers, [(rows, 0, 0)])
        if "AS annotated" in sql:
            numbers = [("row_count", "INTEGER"), ("annotated", "INTEGER")]
            return _result(numbers, [(rows, rows)])
        if "AS version" in sql:
            dataset, _, datatype = table.partition(".")
            experiment, date = dataset.partition("_")[2], values["date"]
            prefix = f"{experiment}/{datatype}/{date[:4]}/{date[4:6]}/{date[6:]}/"
            origins = [(f"gs://{BUCKET}/{archive(prefix)}", "v1", rows)] if rows else []
            names = [("archive", "STRING"), ("version", "STRING"), ("row_count", "INTEGER")]
            return _result(names, origins)
        return None

    def routes(self) -> list[Route]:
        project = "/bigquery/v2/projects/{project}"
        tables = f"{project}/datasets/{{dataset}}/tables"
        return [
            Route(f"{project}/jobs", self.make_job, methods=["POST"]),
            Route(f"{project}/jobs/{{job}}", self.get_job),
            Route(f"{project}/queries/{{job}}", self.get_answer),
            Route(f"{project}/datasets", self.make_dataset, methods=["POST"]),
            Route(tables, self.make_table, methods=["POST"]),
            Route(f"{tables}/{{table}}", self.get_table),
            Route(f"{tables}/{{table}}", self.delete_table, methods=["DELETE"]),
        ]


def archive(prefix: str) -> str:
    """The one archive under the prefix of a source and date."""
    _, datatype, *date = prefix.strip("/").split("/")
    return f"{prefix}{''.join(date)}T000000Z-{datatype}.tgz"


async def list_objects(request: Request) -> Response:
    """One archive for each source and date, and one object of it that was written just now."""
    bucket, prefix = request.path_params["bucket"], request.query_params["prefix"]
    if bucket == BUCKET:
        return JSONResponse(
            {"items": [{"name": archive(prefix), "size": "1000", "timeCreated": _ARCHIVED}]}
        )
    source, _, rest = prefix.partition("/")
    written = {
        "name": f"{source}/{archive(rest)}.jsonl",
        "size": str(ROWS * 100),
        "updated": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
        "metadata": {"rows": str(ROWS)},
    }
    return JSONResponse({"items": [written]})


async def alive(request: Request) -> Response:
    return Response("yes")


def build_app() -> Starlette:
    """Both services."""
    return Starlette(
        routes=[
            *BigQuery().routes(),
            Route("/storage/v1/b/{bucket}/o", list_objects),
            Route("/alive", alive),
        ]
    )


def parse(api: str) -> None:
    """Take jobs, and say of each that it is parsed; for ever."""
    connection = http.client.HTTPConnection(urlsplit(api).netloc, timeout=60)

    def call(target: str) -> tuple[int, bytes]:
        try:
            connection.request("POST", f"/v2/job/{target}", headers={"Content-Length": "0"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):  # the sidecar is not up yet, or again
            connection.close()
            return 500, b""

    while True:
        code, body = call("next")
        if code != 200:
            time.sleep(PAUSE_SECONDS)
            continue
        job_id = quote(json.loads(body)["ID"], safe="")
        call(f"update?id={job_id}&state=parsing&detail=starting+tasks")
        call(f"update?id={job_id}&state=postProcessing&detail=")


def _result(fields: Fields, rows: Sequence[Sequence[object]]) -> dict[str, Any]:
    return {
        "kind": "bigquery#getQueryResultsResponse",
        "jobComplete": True,
        "schema": {"fields": [{"name": name, "type": kind} for name, kind in fields]},
        "totalRows": str(len(rows)),
        "rows": [{"f": [{"v": str(value)} for value in row]} for row in rows],
    }


def _table_id(request: Request) -> str:
    return f"{request.path_params['dataset']}.{request.path_params['table']}"


def _partition(reference: dict[str, str]) -> str:
    return f"{reference['datasetId']}.{reference['tableId']}"


def _not_found(message: str) -> Response:
    return _error(404, "notFound", message)


def _error(code: int, reason: str, message: str) -> Response:
    error = {"code": code, "message": message, "errors": [{"reason": reason, "message": message}]}
    return JSONResponse({"error": error}, status_code=code)


def main() -> None:
    """Serve, and parse."""
    parser = argparse.ArgumentParser(description="Services and a parser that take no time.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--api", required=True, help="the jobs API's URL")
    options = parser.parse_args()
    threading.Thread(target=parse, args=[options.api], daemon=True).start()
    uvicorn.run(build_app(), host="127.0.0.1", port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
