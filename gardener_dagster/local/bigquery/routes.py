"""What all routes share: the server's parts, calls and their parameters, errors as answers."""

import datetime as dt
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gardener_dagster.local.bigquery.catalog import Catalog
from gardener_dagster.local.bigquery.database import Database
from gardener_dagster.local.bigquery.errors import BigQueryError, invalid
from gardener_dagster.local.bigquery.faults import Faults
from gardener_dagster.local.bigquery.jobs import Jobs
from gardener_dagster.local.bigquery.tables import Resource, TableId

PROJECT = "/bigquery/v2/projects/{project}"


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a server is made of."""

    database: Database
    catalog: Catalog
    jobs: Jobs
    faults: Faults
    now: Callable[[], dt.datetime]


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call, read from the wire.

    Attributes:
        path: the parameters in its path.
        query: those after the question mark; of repeated ones the last.
        headers: with lower-case names.
        body: of JSON; empty if there was none.
    """

    path: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Resource

    @staticmethod
    async def read(request: Request) -> "Call":
        """The call of a request.

        Raises:
            BigQueryError: its body is no JSON object.
        """
        return Call(
            path=request.path_params,
            query=request.query_params,
            headers=request.headers,
            body=json_object(await request.body()),
        )

    @property
    def project(self) -> str:
        """The project in the path."""
        return self.path["project"]

    @property
    def table(self) -> TableId:
        """The table, or partition, in the path."""
        reference = {"datasetId": self.path["dataset"], "tableId": self.path["table"]}
        return TableId.of(reference, project=self.project)

    def flag(self, name: str) -> bool:
        """A parameter that is true or false."""
        return self.query.get(name, "").lower() == "true"

    def number(self, name: str, default: int) -> int:
        """A parameter that is a number.

        Raises:
            BigQueryError: it is none, or negative.
        """
        text = self.query.get(name) or str(default)
        if not text.isdecimal():
            raise invalid(f"Invalid value for {name}: {text}", location=name)
        return int(text)


def json_object(content: bytes) -> Resource:
    """The JSON object of a body; empty if there is no body.

    Raises:
        BigQueryError: it is something else.
    """
    if not content:
        return {}
    try:
        body = json.loads(content)
    except ValueError as error:
        raise BigQueryError("parseError", f"Parse Error: {error}") from error
    if not isinstance(body, dict):
        raise BigQueryError("parseError", "Parse Error: the body must be a JSON object")
    return body


def blocking(path: str, method: str, handle: Callable[[Call], Resource | Response | None]) -> Route:
    """A route whose handler works in a thread.

    Args:
        path: after the project's.
        method: HTTP's.
        handle: gives the resource to answer with, or ``None`` for an empty answer.
    """

    async def endpoint(request: Request) -> Response:
        answer = await run_in_threadpool(handle, await Call.read(request))
        if isinstance(answer, Response):
            return answer
        return Response(status_code=204) if answer is None else JSONResponse(answer)

    return Route(PROJECT + path, endpoint, methods=[method])


def waiting(path: str, method: str, handle: Callable[[Call], Awaitable[Response]]) -> Route:
    """A route whose handler may wait for a job."""

    async def endpoint(request: Request) -> Response:
        return await handle(await Call.read(request))

    return Route(PROJECT + path, endpoint, methods=[method])


def error_answer(_: Request, error: Exception) -> Response:
    """Starlette's handler of :class:`BigQueryError`."""
    if not isinstance(error, BigQueryError):
        raise error
    return JSONResponse(error.body(), error.code)


def listed(items: list[Any], call: Call, default: int = 1000) -> tuple[list[Any], Resource]:
    """One page of a list, and what the answer says about the next."""
    start = call.number("pageToken", 0)
    end = start + (call.number("maxResults", default) or default)
    return items[start:end], ({"nextPageToken": str(end)} if end < len(items) else {})
