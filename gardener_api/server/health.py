"""The sidecar's health: ``/alive`` for its supervisor, ``/ready`` for whatever sends it calls.

A sidecar whose store is away is alive: a restart would not bring the store back.

Anybody may ask, so an answer names the part that is not ready and no more. The log has the error.
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
"""For all that is asked to answer."""
_AT_ONCE = 2
"""Threads that may be stuck in a store that does not answer, so that other pages keep theirs."""

Check = Callable[[], str]
"""Says how something is, or raises what is wrong with it."""


def health_routes(checks: Mapping[str, Check]) -> list[Route]:
    """Make the routes of ``/alive`` and ``/ready``.

    ``/alive`` answers 200 while the process answers at all. ``/ready`` answers 200 if every check
    passes, and 503 with the name of the first one that does not.

    Args:
        checks: What is needed, by name, in the order in which it is checked. They may block.
    """
    limiter = CapacityLimiter(_AT_ONCE)
    # Probes come every few seconds: an error is logged when it begins.
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
            except Exception as error:  # noqa: BLE001 - whatever it is, the answer is no
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
    """What an error says, on one line: the driver's words, where SQLAlchemy wraps them."""
    cause = getattr(error, "orig", None) or error
    text = " ".join(str(cause).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
