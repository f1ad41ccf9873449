"""Load jobs whose data come with the call.

https://cloud.google.com/bigquery/docs/reference/api-uploads: ``multipart`` in one call, or
``resumable`` in several, which goes to disk as it comes.
"""

import re
import threading
import uuid
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gardener_dagster.local.bigquery.errors import invalid, not_found
from gardener_dagster.local.bigquery.faults import CutResponse
from gardener_dagster.local.bigquery.routes import PROJECT, Parts, json_object
from gardener_dagster.local.bigquery.tables import Resource

_RANGE = re.compile(r"bytes (?:\*|(?P<first>\d+)-(?P<last>\d+))/(?P<total>\d+|\*)")


class UploadRoutes:
    """The routes.

    Args:
        parts: of the server.
    """

    def __init__(self, parts: Parts) -> None:
        self._jobs, self._faults = parts.jobs, parts.faults
        self._scratch = parts.database.scratch
        self._open: dict[str, Resource] = {}
        self._lock = threading.Lock()

    def routes(self) -> list[Route]:
        """All of them."""
        path = f"/upload{PROJECT}/jobs"
        return [
            Route(path, self._begin, methods=["POST"]),
            Route(path, self._continue, methods=["PUT"]),
        ]

    async def _begin(self, request: Request) -> Response:
        kind = request.query_params.get("uploadType")
        project = request.path_params["project"]
        if kind == "multipart":
            body, media = _parts(await request.body(), request.headers.get("content-type", ""))
            path = self._scratch / uuid.uuid4().hex
            await run_in_threadpool(path.write_bytes, media)
            return await run_in_threadpool(self._insert, project, body, path)
        if kind != "resumable":
            raise invalid("Invalid value for uploadType: expected multipart or resumable")
        upload = uuid.uuid4().hex
        with self._lock:
            self._open[upload] = json_object(await request.body())
        (self._scratch / upload).touch()
        url = request.url.include_query_params(upload_id=upload)
        return Response(headers={"Location": str(url)})

    async def _continue(self, request: Request) -> Response:
        upload = request.query_params.get("upload_id", "")
        with self._lock:
            body = self._open.get(upload)
        said = _RANGE.fullmatch(request.headers.get("content-range", ""))
        if body is None:
            raise not_found("Upload", upload)
        if said is None:
            raise invalid("A resumable upload needs a Content-Range")
        path = self._scratch / upload
        if said["first"] is not None:
            await self._write(request, path, int(said["first"]))
        size = path.stat().st_size
        if said["total"] == "*" or size < int(said["total"]):
            received = {"Range": f"bytes=0-{size - 1}"} if size else {}
            return Response(status_code=308, headers=received)
        with self._lock:
            del self._open[upload]
        return await run_in_threadpool(self._insert, request.path_params["project"], body, path)

    @staticmethod
    async def _write(request: Request, path: Path, first: int) -> None:
        with path.open("r+b") as file:
            file.seek(first)
            async for chunk in request.stream():
                file.write(chunk)
            file.truncate()

    def _insert(self, project: str, body: Resource, media: Path) -> Response:
        try:
            fault = self._faults.of_job(body)
            task = self._jobs.insert(project, body, media=media, fault=fault)
        except BaseException:
            media.unlink()
            raise
        return CutResponse() if fault and fault.cuts else JSONResponse(task.snapshot())


def _parts(content: bytes, kind: str) -> tuple[Resource, bytes]:
    """The job and the data of a ``multipart/related`` body.

    Raises:
        BigQueryError: it is none.
    """
    boundary = re.search(r'boundary="?([^";]+)', kind)
    parts = content.split(b"--" + boundary[1].encode()) if boundary else []
    if len(parts) < 4:
        raise invalid("A multipart upload needs a boundary and two parts")
    bodies = [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in parts[1:3]]
    return json_object(bodies[0]), bodies[1]
