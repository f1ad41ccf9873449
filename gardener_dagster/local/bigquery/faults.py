"""Errors and delays that tests inject. Only a server started with ``--faults`` has ``/faults``.

``POST /faults`` adds faults: a list, or one object. ``DELETE /faults`` removes all of them.

A fault applies to HTTP calls, or to jobs when they are inserted:

- Calls are chosen by ``method`` and ``path``, a regular expression searched in the URL's path.
- Jobs are chosen by ``job_type`` (``load``, ``query``, ``copy``), ``job_id`` (a regular
  expression) and ``labels``. A job must match all that are given.

``action`` is one of

- ``error``: the call fails with ``status``, ``reason`` and ``message``, and has no effect.
- ``delay``: the call is handled after ``seconds``; a job stays PENDING for ``seconds``.
- ``job_error``: the job is accepted, does nothing, and fails with ``reason`` and ``message``.
- ``hang``: the job is accepted and stays RUNNING until it is cancelled.

``times`` is the number of times that the fault is applied (default 1).
"""

import asyncio
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gardener_dagster.local.bigquery.errors import BigQueryError, invalid

_CALL_ACTIONS = ("error", "delay")
_JOB_ACTIONS = ("job_error", "hang", "delay")


@dataclass(kw_only=True)
class Fault:
    """One fault; the module's docstring describes its attributes."""

    action: str
    method: str = ""
    path: str = ""
    job_type: str = ""
    job_id: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    status: int = 503
    reason: str = "backendError"
    message: str = "injected"
    seconds: float = 0.0
    times: int = 1

    @staticmethod
    def of(body: Mapping[str, Any]) -> "Fault":
        """Parse a fault from JSON.

        Raises:
            BigQueryError: a key or value is wrong.
        """
        try:
            fault = Fault(**body)
            re.compile(fault.path)
            re.compile(fault.job_id)
        except (TypeError, re.error) as error:
            raise invalid(f"Not a fault: {dict(body)}: {error}") from error
        actions = _JOB_ACTIONS if fault.of_jobs else _CALL_ACTIONS
        if fault.action not in actions:
            raise invalid(f"Not a fault: {dict(body)}: action must be one of {actions}")
        return fault

    @property
    def of_jobs(self) -> bool:
        """Whether the fault applies to jobs, not to calls."""
        return bool(self.job_type or self.job_id or self.labels)

    def error(self) -> BigQueryError:
        """Make the injected error."""
        return BigQueryError(self.reason, self.message, code=self.status)


class Faults:
    """The faults of a server; thread-safe."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, faults: Sequence[Fault]) -> None:
        """Add faults."""
        with self._lock:
            self._faults += faults

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._faults.clear()

    def of_call(self, method: str, path: str) -> Fault | None:
        """Return the first fault that matches an HTTP call, and decrement its ``times``."""
        return self._take(
            lambda fault: (
                not fault.of_jobs
                and fault.method in ("", method)
                and re.search(fault.path, path) is not None
            )
        )

    def of_job(self, body: Mapping[str, Any]) -> Fault | None:
        """Return the first fault that matches an inserted job, and decrement its ``times``.

        Args:
            body: the ``Job`` resource.
        """
        configuration = body.get("configuration") or {}
        labels = configuration.get("labels") or {}
        job_id = str((body.get("jobReference") or {}).get("jobId", ""))
        return self._take(
            lambda fault: (
                fault.of_jobs
                and fault.job_type in ("", *configuration)
                and re.search(fault.job_id, job_id) is not None
                and fault.labels.items() <= labels.items()
            )
        )

    def _take(self, matches: Callable[[Fault], bool]) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.times > 0 and matches(fault):
                    fault.times -= 1
                    return fault
        return None


class FaultMiddleware:
    """ASGI middleware that applies the faults of calls."""

    def __init__(self, app: ASGIApp, faults: Faults) -> None:
        self._app, self._faults = app, faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        fault = None
        if scope["type"] == "http" and scope["path"] != "/faults":
            fault = self._faults.of_call(scope["method"], scope["path"])
        if fault and fault.action == "error":
            error = fault.error()
            await JSONResponse(error.body(), error.code)(scope, receive, send)
            return
        if fault:
            await asyncio.sleep(fault.seconds)
        await self._app(scope, receive, send)


def fault_routes(faults: Faults) -> list[Route]:
    """Make the routes of ``/faults``."""

    async def post(request: Request) -> Response:
        body = await request.json()
        faults.add([Fault.of(one) for one in (body if isinstance(body, list) else [body])])
        return JSONResponse([])

    async def delete(_: Request) -> Response:
        faults.clear()
        return JSONResponse([])

    return [
        Route("/faults", post, methods=["POST"]),
        Route("/faults", delete, methods=["DELETE"]),
    ]
