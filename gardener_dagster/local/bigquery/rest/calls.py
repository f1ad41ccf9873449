"""Read calls from HTTP, and make routes of functions that handle them."""

import datetime as dt
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gardener_dagster.local.bigquery.catalog.catalog import Catalog
from gardener_dagster.local.bigquery.catalog.database import Database
from gardener_dagster.local.bigquery.catalog.table import Resource, TableId
from gardener_dagster.local.bigquery.errors import BigQueryError, invalid
from gardener_dagster.local.bigquery.faults import Faults
from gardener_dagster.local.bigquery.jobs.jobs import Jobs

_PROJECT = "/bigquery/v2/projects/{project}"


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The components of a server that the routes use."""

    database: Database
    catalog: Catalog
    jobs: Jobs
    faults: Faults
    now: Callable[[], dt.datetime]


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call of the REST API.

    Attributes:
        path: path parameters.
        query: query parameters.
        headers: headers by lower-case name.
        body: the JSON body; empty if there is none.
    """

    path: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Resource

    @staticmethod
    async def read(request: Request) -> "Call":
        """Read a request.

        Raises:
            BigQueryError: its body is not a JSON object.
        """
        return Call(
            path=request.path_params,
            query=request.query_params,
            headers=request.headers,
            body=_json_object(await request.body()),
        )

    @property
    def project(self) -> str:
        """The project in the path."""
        return self.path["project"]

    @property
    def table(self) -> TableId:
        """The table or partition in the path."""
        reference = {"datasetId": self.path["dataset"], "tableId": self.path["table"]}
        return TableId.of(reference, project=self.project)

    def number(self, name: str, default: int) -> int:
        """Return a query parameter that is a number.

        Raises:
            BigQueryError: it is not a number, or negative.
        """
        text = self.query.get(name) or str(default)
        if not text.isdecimal():
            raise invalid(f"Invalid value for {name}: {text}", location=name)
        return int(text)


def _json_object(content: bytes) -> Resource:
    if not content:
        return {}
    try:
        body = json.loads(content)
    except ValueError as error:
        raise BigQueryError("parseError", f"Parse Error: {error}") from error
    if not isinstance(body, dict):
        raise BigQueryError("parseError", "Parse Error: the body must be a JSON object")
    return body


def route(path: str, method: str, handle: Callable[[Call], Resource | None]) -> Route:
    """Make a route. Its handler runs in a thread, and may block.

    Args:
        path: path below the project's path.
        method: HTTP method.
        handle: returns the resource of the response, or None for an empty response.
    """

    async def endpoint(request: Request) -> Response:
        answer = await run_in_threadpool(handle, await Call.read(request))
        return Response(status_code=204) if answer is None else JSONResponse(answer)

    return Route(_PROJECT + path, endpoint, methods=[method])
