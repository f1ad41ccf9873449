"""The sidecar's health: ``/alive`` for its supervisor, ``/ready`` for whatever sends it calls.

A sidecar whose store is unavailable is alive: a restart would not repair the store.

Requests need no token, so an answer only names the part that is not ready. The log has the error.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

log = logging.getLogger(__name__)

READY_SECONDS = 5.0
"""Timeout of each check."""
_AT_ONCE = 2
"""Maximum threads for checks: if the store hangs, the other threads still serve other pages."""

Check = Callable[[], str]
"""Returns a description of the state, or raises an error."""


def health_routes(checks: Mapping[str, Check]) -> list[Route]:
    """Make the routes of ``/alive`` and ``/ready``.

    ``/alive`` answers 200 while the process runs. ``/ready`` answers 200 if every check passes, and
    503 with the name of the first check that fails.

    Args:
        checks: The checks by name, in the order in which they run. They may block.
    """
    limiter = CapacityLimiter(_AT_ONCE)
    # Probes arrive every few seconds: a repeated error is logged only once.
    logged: tuple[str, str] | None = None

    async def alive(_: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def ready(_: Request) -> Response:
        nonlocal logged
        lines = ["ready"]
        for name, check in checks.items():
            try:
                async with asyncio.timeout(READY_SECONDS):
                    said = await to_thread.run_sync(check, abandon_on_cancel=True, limiter=limiter)
            except Exception as error:  # noqa: BLE001 - any error means not ready
                late = isinstance(error, TimeoutError)
                why = f"no answer within {READY_SECONDS:.0f} s" if late else reason(error)
                if logged != (name, why):
                    log.warning("not ready: %s: %s", name, why)
                logged = name, why
                return PlainTextResponse(f"not ready: {name}; the log says why\n", 503)
            lines.append(f"{name}: {said}")
        if logged:
            log.warning("ready again")
            logged = None
        return PlainTextResponse("\n".join(lines) + "\n")

    return [Route("/alive", alive), Route("/ready", ready)]


def reason(error: Exception) -> str:
    """Return an error's type and its message (of SQLAlchemy, the driver's) on one line."""
    cause = getattr(error, "orig", None) or error
    text = " ".join(str(cause).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
