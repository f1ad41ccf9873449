"""What tests make go wrong. Only a server that was started with faults has ``/faults``.

``POST /faults`` takes a list, ``GET`` shows what is left of it, ``DELETE`` empties it. A fault is
an object with

- what it happens to. Either calls: ``method`` and ``path`` (a regular expression searched in the
  path). Or jobs that are about to be accepted: ``job_type`` (``load``, ``query``, ``copy``),
  ``job_id`` (a regular expression), ``labels`` (all of these values).
- ``action``:
  ``error``: the call is refused with ``status``, ``reason``, ``message``; nothing is done.
  ``cut``: all is done, then the connection is cut without an answer.
  ``cut_before``: the connection is cut and nothing is done.
  ``delay``: the call waits for ``seconds`` first; a job stays PENDING so long.
  ``job_error``: the job is accepted, does nothing and fails with ``reason`` and ``message``.
  ``hang``: the job is accepted and stays RUNNING until it is cancelled.
- ``times``: how often (1), after the first ``skip`` (0) matches.
"""

import asyncio
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gardener_dagster.local.bigquery.errors import BigQueryError, invalid

_CALLS = frozenset({"error", "cut", "cut_before", "delay"})
_JOBS = frozenset({"job_error", "hang"})


@dataclass(kw_only=True)
class Fault:
    """One entry of the list."""

    action: str
    method: str = ""
    path: str = ""
    job_type: str = ""
    job_id: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    status: int = 503
    reason: str = "backendError"
    message: str = "injected"
    location: str = ""
    seconds: float = 0.0
    times: int = 1
    skip: int = 0

    @staticmethod
    def of(body: Mapping[str, Any]) -> "Fault":
        """From JSON.

        Raises:
            BigQueryError: it is no fault.
        """
        try:
            fault = Fault(**body)
            re.compile(fault.path)
            re.compile(fault.job_id)
        except (TypeError, re.error) as error:
            raise invalid(f"No fault: {dict(body)}: {error}") from error
        if fault.action not in _CALLS | _JOBS:
            raise invalid(f"action: {fault.action!r} is none of {sorted(_CALLS | _JOBS)}")
        if fault.action in _JOBS and not fault.of_jobs:
            raise invalid(f"action {fault.action} needs job_type, job_id or labels")
        if fault.of_jobs and (fault.method or fault.path):
            raise invalid("A fault happens to calls (method, path) or to jobs, not to both")
        return fault

    @property
    def of_jobs(self) -> bool:
        """Whether it happens to jobs; else to calls."""
        return bool(self.job_type or self.job_id or self.labels)

    def error(self) -> BigQueryError:
        """What the caller or the job gets to see."""
        return BigQueryError(self.reason, self.message, code=self.status, location=self.location)


@dataclass(frozen=True, kw_only=True)
class JobFault:
    """What happens to a job once it is accepted.

    Attributes:
        error: it fails.
        hangs: it never ends.
        seconds: it starts so much later.
        cuts: the connection is cut instead of an answer.
    """

    error: BigQueryError | None = None
    hangs: bool = False
    seconds: float = 0.0
    cuts: bool = False


class Faults:
    """The list, for all threads."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, faults: Sequence[Fault]) -> None:
        """Puts more at its end."""
        with self._lock:
            self._faults += faults

    def clear(self) -> None:
        """Empties it."""
        with self._lock:
            self._faults.clear()

    def left(self) -> list[dict[str, Any]]:
        """Those that have not happened often enough."""
        with self._lock:
            return [asdict(fault) for fault in self._faults if fault.times > 0]

    def of_call(self, method: str, path: str) -> Fault | None:
        """What happens to a call; it is then counted."""

        def matches(fault: Fault) -> bool:
            return (
                not fault.of_jobs
                and fault.method in ("", method)
                and re.search(fault.path, path) is not None
            )

        return self._take(matches)

    def of_job(self, body: Mapping[str, Any]) -> JobFault | None:
        """What happens to a job that is to be accepted; it is then counted.

        Raises:
            BigQueryError: the job is refused.
            Cut: the connection is cut.
        """
        configuration = body.get("configuration") or {}
        labels = configuration.get("labels") or {}
        job_id = str((body.get("jobReference") or {}).get("jobId", ""))

        def matches(fault: Fault) -> bool:
            return (
                fault.of_jobs
                and (not fault.job_type or fault.job_type in configuration)
                and re.search(fault.job_id, job_id) is not None
                and fault.labels.items() <= labels.items()
            )

        fault = self._take(matches)
        if fault is None:
            return None
        match fault.action:
            case "error":
                raise fault.error()
            case "cut_before":
                raise Cut
            case "job_error":
                return JobFault(error=fault.error())
            case action:
                return JobFault(hangs=action == "hang", cuts=action == "cut", seconds=fault.seconds)

    def _take(self, matches: Any) -> Fault | None:  # noqa: ANN401 - a predicate of Fault
        with self._lock:
            for fault in self._faults:
                if fault.times > 0 and matches(fault):
                    if fault.skip:
                        fault.skip -= 1
                        continue
                    fault.times -= 1
                    return fault
        return None


class Cut(Exception):
    """The connection ends here, without an answer."""


class FaultMiddleware:
    """Puts faults between the server and its callers."""

    def __init__(self, app: ASGIApp, faults: Faults) -> None:
        self._app, self._faults = app, faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] != "http" or scope["path"] == "/faults":
            await self._app(scope, receive, send)
            return
        fault = self._faults.of_call(scope["method"], scope["path"])
        action = fault.action if fault else ""
        if fault and action == "error":
            error = fault.error()
            await JSONResponse(error.body(), error.code)(scope, receive, send)
            return
        if fault and action == "delay":
            await asyncio.sleep(fault.seconds)
        if action == "cut":
            await self._app(scope, receive, _nowhere)
        if action in ("cut", "cut_before"):
            await CutResponse()(scope, receive, send)
        else:
            await self._app(scope, receive, send)


async def _nowhere(_: Message) -> None:
    """An answer that nobody gets."""


class CutResponse(Response):
    """Breaks the connection off: an answer is begun and never ended, so the server closes it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]}
        )


def cut(_: Request, __: Exception) -> Response:
    """Starlette's handler of :class:`Cut`."""
    return CutResponse()


def fault_routes(faults: Faults) -> list[Route]:
    """``/faults``."""

    async def post(request: Request) -> Response:
        body = await request.json()
        faults.add([Fault.of(one) for one in (body if isinstance(body, list) else [body])])
        return JSONResponse(faults.left())

    async def get(_: Request) -> Response:
        return JSONResponse(faults.left())

    async def delete(_: Request) -> Response:
        faults.clear()
        return JSONResponse([])

    return [
        Route("/faults", post, methods=["POST"]),
        Route("/faults", get, methods=["GET"]),
        Route("/faults", delete, methods=["DELETE"]),
    ]
