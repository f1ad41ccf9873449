"""The status page: what jobs there are, where they are, and what happened to them.

It reads the store and the configuration, and shows nothing else; nothing can be changed here.
"""

import datetime as dt
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from gardener_api.config import GardenerConfig
from gardener_api.jobs import ENDED, Job, JobState
from gardener_api.queries import JobOrder

if TYPE_CHECKING:
    from gardener_api.store import JobStore

PAGE = 100
"""Jobs on a page."""
REFRESH_SECONDS = 15
_MOST_PAGES = 10_000  # so that an offset is a number that every database takes

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def create_status_app(
    config: GardenerConfig, store: "JobStore", *, clock: Callable[[], dt.datetime]
) -> Starlette:
    """The application of the status port.

    Args:
        config: The gardener's.
        store: The jobs.
        clock: The time, aware and UTC.
    """
    pages = _Pages(config, store, clock)
    return Starlette(
        routes=[
            Route("/", pages.jobs),
            Route("/status", pages.jobs),
            Route("/job/{number:int}", pages.job),
            Route("/alive", lambda _: PlainTextResponse("alive\n")),
        ]
    )


def human_duration(duration: dt.timedelta) -> str:
    """A duration in the two largest units that say something: ``3 h 12 min``."""
    seconds = max(0, int(duration.total_seconds()))
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    if minutes:
        return f"{minutes} min {seconds} s"
    return f"{seconds} s"


def human_bytes(size: int) -> str:
    """A size in bytes, with the unit that leaves at most four digits."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


class _Pages:
    """The pages. Plain functions: Starlette runs them in threads, where they may wait."""

    def __init__(
        self, config: GardenerConfig, store: "JobStore", clock: Callable[[], dt.datetime]
    ) -> None:
        self._config, self._store, self._clock = config, store, clock
        environment = Environment(
            loader=PackageLoader("gardener_api"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {
            "duration": human_duration,
            "seconds": lambda seconds: human_duration(dt.timedelta(seconds=seconds)),
            "bytes": human_bytes,
            "time": lambda time: f"{time:%Y-%m-%d %H:%M:%S}",
        }
        self._templates = environment

    def jobs(self, request: Request) -> Response:
        """The list of jobs, with the filters of the query."""
        wanted = _Filter(request)
        jobs = self._store.jobs(
            experiment=wanted.experiment or None,
            datatype=wanted.datatype or None,
            date=wanted.date,
            states=wanted.states,
            text=wanted.text or None,
            limit=PAGE + 1,
            offset=wanted.page * PAGE,
            order=JobOrder.RECENT,
        )
        counts = self._store.counts()
        return self._render(
            "jobs.html",
            jobs=jobs[:PAGE],
            more=len(jobs) > PAGE,
            wanted=wanted,
            request=request,
            counts=[(state, counts.get(state, 0)) for state in JobState],
            total=sum(counts.values()),
            config=self._config,
            experiments=sorted({s.experiment for s in self._config.sources}),
            datatypes=sorted({s.datatype for s in self._config.sources}),
        )

    def job(self, request: Request) -> Response:
        """One job, with everything that happened to it."""
        number: int = request.path_params["number"]
        job = self._store.job(number) if number < 2**63 else None
        if job is None:
            raise HTTPException(404, f"there is no job number {number}")
        return self._render(
            "job.html",
            job=job,
            events=self._store.events(number),
            requests=self._store.requests(number),
            operations=self._store.tables.operations(job.key),
        )

    def _render(self, template: str, **values: Any) -> Response:  # noqa: ANN401 - what templates show
        now = self._clock()

        def in_state(job: Job) -> str:
            return human_duration(now - job.entered)

        html = self._templates.get_template(template).render(
            now=now, refresh=REFRESH_SECONDS, ended=ENDED, in_state=in_state, **values
        )
        return HTMLResponse(html, headers=_HEADERS)


class _Filter:
    """Which jobs a request wants to see."""

    def __init__(self, request: Request) -> None:
        query = request.query_params
        self.experiment = _plain(query.get("experiment", ""))
        self.datatype = _plain(query.get("datatype", ""))
        self.text = _plain(query.get("text", ""))
        self.state = query.get("state", "")
        self.day = query.get("date", "")
        self.date = _parsed(dt.date.fromisoformat, self.day, "date", "like 2024-03-01")
        chosen = _parsed(JobState, self.state, "state", f"one of {', '.join(JobState)}")
        self.states = {chosen} if chosen else None
        self.page = _parsed(int, query.get("page", ""), "page", "a number") or 0
        if not 0 <= self.page <= _MOST_PAGES:
            raise HTTPException(400, f"page {self.page}: expected 0 to {_MOST_PAGES}")

    def link(self, request: Request, **changed: object) -> str:
        """The same list with other filters."""
        return str(request.url.include_query_params(**changed).replace(scheme="", netloc=""))


def _plain(text: str) -> str:
    return text.strip().replace("\0", "")


def _parsed(parse: Callable[[str], Any], text: str, name: str, expected: str) -> Any:  # noqa: ANN401
    if not text:
        return None
    try:
        return parse(text)
    except ValueError as error:
        raise HTTPException(400, f"{name} {text!r}: expected {expected}") from error
