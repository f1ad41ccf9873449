"""The server: its parts put together, and run."""

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

from gardener_dagster.local.bigquery.catalog import Catalog
from gardener_dagster.local.bigquery.copying import CopyWork
from gardener_dagster.local.bigquery.database import Database
from gardener_dagster.local.bigquery.errors import BigQueryError
from gardener_dagster.local.bigquery.faults import (
    Cut,
    FaultMiddleware,
    Faults,
    cut,
    fault_routes,
)
from gardener_dagster.local.bigquery.jobs import Jobs, Work
from gardener_dagster.local.bigquery.load import LoadWork
from gardener_dagster.local.bigquery.objects import Storage
from gardener_dagster.local.bigquery.query import QueryWork
from gardener_dagster.local.bigquery.routes import Parts, error_answer
from gardener_dagster.local.bigquery.routes_catalog import CatalogRoutes
from gardener_dagster.local.bigquery.routes_jobs import JobRoutes
from gardener_dagster.local.bigquery.uploads import UploadRoutes


def utc_now() -> dt.datetime:
    """The time."""
    return dt.datetime.now(dt.UTC)


def create_app(
    data: Path,
    *,
    now: Callable[[], dt.datetime] = utc_now,
    memory_limit: str = "512MB",
    threads: int = 2,
    faults: bool = False,
    storage_url: str = "",
) -> ASGIApp:
    """A server on a folder, which it has until its lifespan ends.

    Args:
        data: folder of everything it keeps.
        now: the time, aware; of jobs, of expirations, and of CURRENT_TIMESTAMP.
        memory_limit: of DuckDB; the process needs about 250 MB more.
        threads: of DuckDB.
        faults: whether ``/faults`` is there.
        storage_url: of Cloud Storage; empty: as ``STORAGE_EMULATOR_HOST`` says.

    Raises:
        DatabaseInUse: another process has the folder.
    """
    database = Database(data, memory_limit=memory_limit, threads=threads)
    catalog = Catalog()
    storage = Storage(database.scratch, storage_url)
    query = QueryWork(database, catalog)
    works: dict[str, Work] = {"load": LoadWork(storage), "query": query, "copy": CopyWork()}
    jobs = Jobs(database, catalog, works, now)
    injected = Faults()
    parts = Parts(database=database, catalog=catalog, jobs=jobs, faults=injected, now=now)

    def close() -> None:
        jobs.close()
        query.close()
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
            *UploadRoutes(parts).routes(),
            *(fault_routes(injected) if faults else []),
        ],
        exception_handlers={
            BigQueryError: error_answer,
            Cut: cut,
            HTTPException: _http_error,
        },
        lifespan=lifespan,
    )
    return FaultMiddleware(app, injected) if faults else app


async def _alive(_: Request) -> Response:
    return PlainTextResponse("ok\n")


async def _http_error(request: Request, error: Exception) -> Response:
    """A path or method that the API has not, in its own shape."""
    if not isinstance(error, HTTPException):
        raise error
    said = f"{request.method} {request.url.path}: {error.detail}"
    reason = "notFound" if error.status_code == 404 else "invalid"
    body = BigQueryError(reason, said, code=error.status_code).body()
    return JSONResponse(body, error.status_code, headers=error.headers)
