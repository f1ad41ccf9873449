"""Build the server from its parts."""

import datetime as dt
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from gardener_dagster.local.bigquery.catalog.catalog import Catalog
from gardener_dagster.local.bigquery.catalog.database import Database
from gardener_dagster.local.bigquery.errors import BigQueryError, not_implemented
from gardener_dagster.local.bigquery.faults import FaultMiddleware, Faults, fault_routes
from gardener_dagster.local.bigquery.jobs.copy import CopyWork
from gardener_dagster.local.bigquery.jobs.jobs import Jobs, Work
from gardener_dagster.local.bigquery.jobs.load import LoadWork
from gardener_dagster.local.bigquery.jobs.query import QueryWork
from gardener_dagster.local.bigquery.loading.objects import Storage
from gardener_dagster.local.bigquery.rest.calls import Parts
from gardener_dagster.local.bigquery.rest.catalog_routes import CatalogRoutes
from gardener_dagster.local.bigquery.rest.job_routes import JobRoutes


def utc_now() -> dt.datetime:
    """Return the current time in UTC, timezone-aware."""
    return dt.datetime.now(dt.UTC)


def create_app(
    data: Path,
    *,
    now: Callable[[], dt.datetime] = utc_now,
    faults: bool = False,
    storage_url: str = "",
) -> ASGIApp:
    """Build a server on a data folder. It locks the folder until its ASGI lifespan ends.

    Args:
        data: folder that holds all data.
        now: function that returns the current time, timezone-aware.
        faults: whether to accept faults at ``/faults``.
        storage_url: URL of a Cloud Storage emulator; empty: ``STORAGE_EMULATOR_HOST``.

    Raises:
        DatabaseInUse: another process uses the folder.
    """
    database = Database(data)
    catalog = Catalog()
    storage = Storage(storage_url)
    works: dict[str, Work] = {
        "load": LoadWork(storage),
        "query": QueryWork(),
        "copy": CopyWork(),
    }
    jobs = Jobs(database, catalog, works, now)
    injected = Faults()
    parts = Parts(database=database, catalog=catalog, jobs=jobs, faults=injected, now=now)

    def close() -> None:
        jobs.close()
        storage.close()
        database.close()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(close)

    app = Starlette(
        routes=[
            Route("/alive", _alive),
            *CatalogRoutes(parts).routes(),
            *JobRoutes(parts).routes(),
            *(fault_routes(injected) if faults else []),
        ],
        exception_handlers={BigQueryError: _bigquery_error, HTTPException: _http_error},
        lifespan=lifespan,
    )
    return FaultMiddleware(app, injected) if faults else app


async def _alive(_: Request) -> Response:
    return PlainTextResponse("ok\n")


async def _bigquery_error(_: Request, error: Exception) -> Response:
    if not isinstance(error, BigQueryError):
        raise error
    return JSONResponse(error.body(), error.code)


async def _http_error(request: Request, error: Exception) -> Response:
    """Answer a call without a route: ``notImplemented`` for API paths, else ``notFound``."""
    if not isinstance(error, HTTPException):
        raise error
    call = f"{request.method} {request.url.path}"
    if request.url.path.startswith(("/bigquery/", "/upload/", "/resumable/")):
        refusal = not_implemented(call)
    else:
        refusal = BigQueryError("notFound", f"{call}: {error.detail}", code=error.status_code)
    return JSONResponse(refusal.body(), refusal.code)
