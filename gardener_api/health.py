"""Whether the sidecar is well: ``/alive`` for who restarts it, ``/ready`` for who sends it calls.

A sidecar whose store is away is alive: starting it anew would not bring the store back.
"""

import asyncio
from collections.abc import Callable, Mapping

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

READY_SECONDS = 5.0
"""For all that is asked to answer."""
_AT_ONCE = 2
"""Threads that may be stuck in a store that does not answer, so that other pages keep theirs."""

Check = Callable[[], str]
"""Says how something is, or raises what is wrong with it."""


def health_routes(checks: Mapping[str, Check]) -> list[Route]:
    """``/alive``: the process answers. ``/ready``: so does everything that it needs, or why not.

    Args:
        checks: What is needed, by name, in the order in which it is asked. They may block.
    """
    limiter = CapacityLimiter(_AT_ONCE)

    async def alive(_: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def ready(_: Request) -> Response:
        lines = ["ready"]
        for name, check in checks.items():
            try:
                async with asyncio.timeout(READY_SECONDS):
                    said = await to_thread.run_sync(check, abandon_on_cancel=True, limiter=limiter)
            except TimeoutError:
                return _not_ready(name, f"no answer within {READY_SECONDS:.0f} s")
            except Exception as error:  # noqa: BLE001 - whatever it is, the answer is no
                return _not_ready(name, reason(error))
            lines.append(f"{name}: {said}")
        return PlainTextResponse("\n".join(lines) + "\n")

    return [Route("/alive", alive), Route("/ready", ready)]


def reason(error: Exception) -> str:
    """What an error says, on one line: the driver's words, where SQLAlchemy wraps them."""
    cause = getattr(error, "orig", None) or error
    text = " ".join(str(cause).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _not_ready(name: str, why: str) -> Response:
    return PlainTextResponse(f"not ready: {name}: {why}\n", 503)
