"""Measure how long calls of the jobs API take, in memory: the store does not know it."""

import time

from prometheus_client import Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Upper edges of the histogram; a parser gives up after 60 s."""
_PATHS = {
    "/job": "/v2/job/next",
    "/update": "/v2/job/update",
    "/heartbeat": "/v2/job/heartbeat",
    "/error": "/v2/job/error",
}
_KNOWN = {*_PATHS.values(), "/alive", "/ready"}
OTHER = "other"
"""The label of all unknown paths, so that callers cannot create series."""


class RequestTimes:
    """A histogram of request times, by path and status code."""

    def __init__(self) -> None:
        self.metric = Histogram(
            "gardener_api_request_seconds",
            "Seconds from a call of the jobs API to its answer, since the process began.",
            ("path", "code"),
            buckets=REQUEST_SECONDS,
            registry=None,
        )
        # Caches the series: a lookup by labels takes longer than the observation.
        self._series: dict[tuple[str, int], Histogram] = {}

    def timed(self, app: ASGIApp) -> ASGIApp:
        """Wrap an application to measure its requests."""

        async def measure(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            begun = time.perf_counter()
            code = 500  # uvicorn's status if the application sends none

            async def keep_code(message: Message) -> None:
                nonlocal code
                if message["type"] == "http.response.start":
                    code = message["status"]
                await send(message)

            try:
                await app(scope, receive, keep_code)
            finally:
                self._of(scope["path"], code).observe(time.perf_counter() - begun)

        return measure

    def _of(self, path: str, code: int) -> Histogram:
        path = _PATHS.get(path, path)
        path = path if path in _KNOWN else OTHER
        series = self._series.get((path, code))
        if series is None:
            series = self._series[path, code] = self.metric.labels(path, str(code))
        return series
