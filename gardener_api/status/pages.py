"""The status port: pages for people, and the same as JSON.

The pages show the store and the configuration, and change nothing. ``problems`` finds what is
wrong; ``filters`` parses the filter of a list.
"""

import datetime as dt
import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from gardener_api.config import GardenerConfig
from gardener_api.formatting import human_bytes, human_duration, spans
from gardener_api.jobs.job import ENDED, PARSING_STATES, Event, Job, JobState
from gardener_api.jobs.snapshot import grid_dates, missing_dates
from gardener_api.links import Links
from gardener_api.status.filters import PAGE, FilterError, JobFilter
from gardener_api.status.grid import SIGNS, failed_checks, grid_rows, legend, months
from gardener_api.status.problems import find_problems, what_to_do
from gardener_api.status.year_plot import DAYS, year_plot
from gardener_api.store.publishing.changes import PartitionChange
from gardener_api.store.publishing.held import HeldPartition
from gardener_api.store.queries.job_queries import MOST_FOUND, JobOrder
from gardener_api.store.tables.check_results import RecordedCheck

if TYPE_CHECKING:
    from gardener_api.store.store import JobStore

log = logging.getLogger(__name__)

REFRESH_SECONDS = 15
LIST_REFRESH_SECONDS = 60
"""Of the list of jobs; it is longer because a refresh clears what is typed into the form."""
VERSIONS = 5
"""Number of versions of each table's partition that a job's page shows."""
_API = "/api/"
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def create_status_app(
    config: GardenerConfig,
    store: "JobStore",
    *,
    clock: Callable[[], dt.datetime],
    links: Links | None = None,
) -> Starlette:
    """Create the application of the status port.

    Args:
        config: The configuration.
        store: The job store.
        clock: Returns the time, aware and UTC.
        links: Makes the links to Dagster and BigQuery; ``None``: no links.
    """
    pages = _Pages(config, store, clock, links or Links())
    return Starlette(
        routes=[
            Route("/", pages.overview),
            Route("/status", pages.overview),
            Route("/jobs", pages.jobs),
            Route("/job/{number:int}", pages.job),
            Route("/sources", pages.sources),
            Route("/sources/{experiment}/{datatype}", pages.history),
            Route("/api/jobs", pages.jobs_json),
            Route("/api/held", pages.held_json),
            Route("/api/jobs/{number:int}", pages.job_json),
            Route("/favicon.ico", lambda _: Response(status_code=204)),  # browsers ask for one
            Route("/alive", lambda _: PlainTextResponse("alive\n")),
        ],
        exception_handlers={
            HTTPException: pages.refused,
            FilterError: pages.bad_filter,
            SQLAlchemyError: pages.no_store,
        },
    )


class _Pages:
    """The handlers of the pages. They are not async: Starlette runs them in threads."""

    def __init__(
        self,
        config: GardenerConfig,
        store: "JobStore",
        clock: Callable[[], dt.datetime],
        links: Links,
    ) -> None:
        self._config, self._store, self._clock = config, store, clock
        self._templates = Environment(
            loader=PackageLoader("gardener_api.status"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {
            "duration": human_duration,
            "seconds": lambda seconds: human_duration(dt.timedelta(seconds=seconds)),
            "bytes": human_bytes,
            "number": "{:,}".format,
            "time": "{:%Y-%m-%d %H:%M:%S}".format,
        }
        self._templates.filters["spans"] = spans
        self._templates.globals |= {
            "links": links,
            "sign": SIGNS.__getitem__,
            "ended": ENDED,
            "job_states": list(JobState),
            "in_hand": PARSING_STATES,
        }

    def overview(self, _: Request) -> Response:
        """Show the problems, and the jobs by state and date."""
        now = self._clock()
        counts = self._store.counts()
        snapshot = self._store.overview.snapshot(counts, now=now)
        return self._render(
            "overview.html",
            now=now,
            problems=find_problems(self._config, snapshot, now=now),
            counts=[(state, counts.get(state, 0)) for state in JobState],
            months=months(grid_dates(now)),
            days=grid_dates(now),
            grid=grid_rows(self._config, snapshot),
            checks=failed_checks(snapshot),
            backfills=self._store.backfills.unfinished(now=now),
            held=[*self._store.held.waiting(), *self._store.held.decided()],
            runs=self._store.overview.table_runs(),
            missing=missing_dates(self._config, snapshot, now=now),
            signs=legend(),
            parsers=self._store.overview.parsers(),
        )

    def jobs(self, request: Request) -> Response:
        """Show the list of jobs."""
        wanted = JobFilter.parse(request.query_params)
        jobs, more = self._found(wanted)
        return self._render(
            "jobs.html",
            refresh=LIST_REFRESH_SECONDS,
            now=self._clock(),
            jobs=jobs,
            more=more,
            wanted=wanted,
            first=wanted.page * PAGE + 1,
            states=list(JobState),
            sorts=JobOrder,
            ascending=_ascending,
            most_found=MOST_FOUND,
            experiments=sorted({s.experiment for s in self._config.sources}),
            datatypes=sorted({s.datatype for s in self._config.sources}),
        )

    def job(self, request: Request) -> Response:
        """Show a job with its history."""
        job = self._job(request)
        events = self._store.events(job.number)
        now = self._clock()
        return self._render(
            "job.html",
            now=now,
            job=job,
            todo=what_to_do(job.error, failed_in=job.failed_in, source=job.key.source)
            if job.failed_in
            else "",
            history=_with_durations(events, job, now),
            requests=self._store.requests(job.number),
            operations=self._store.tables.operations(job.key),
            checks=self._store.checks.of(job.key),
            held=self._store.held.of(job.key),
            changes=self._changes(job),
            generations=self._store.overview.generations(job.key),
        )

    def sources(self, _: Request) -> Response:
        """Show the configuration."""
        return self._render("sources.html", now=self._clock(), config=self._config)

    def history(self, request: Request) -> Response:
        """Show the number of rows of a source by day, over a year."""
        name = "{experiment}/{datatype}".format_map(request.path_params)
        try:
            source = self._config.source(name)
        except KeyError as error:
            raise HTTPException(404, str(error.args[0])) from error
        now = self._clock()
        last = now.date() - dt.timedelta(days=1)
        first = last - dt.timedelta(days=DAYS - 1)
        rows = self._store.days.rows(source.raw_table, first, last)
        states = self._store.plans.states(source.bucket, name, first, last)
        held = {
            each.key.date
            for each in self._store.held.waiting()
            if (each.key.bucket, each.key.source) == (source.bucket, name)
        }
        plot = year_plot(rows, states, held, last=last)
        return self._render("history.html", now=now, source=source, plot=plot)

    def jobs_json(self, request: Request) -> Response:
        """Return the list of jobs, with the filters, orders and pages of ``/jobs``."""
        wanted = JobFilter.parse(request.query_params)
        jobs, more = self._found(wanted)
        following = f"{_API}jobs?{wanted.query(page=wanted.page + 1)}" if more else None
        failing = self._store.checks.failing_of({job.key for job in jobs})
        values = [
            _job_values(job)
            | {"failing_checks": [_check_values(each) for each in failing.get(job.key, ())]}
            for job in jobs
        ]
        return _json({"jobs": values, "next": following})

    def job_json(self, request: Request) -> Response:
        """Return a job with its history."""
        job = self._job(request)
        return _json(
            _job_values(job)
            | {
                "events": [asdict(event) for event in self._store.events(job.number)],
                "requests": [asdict(asked) for asked in self._store.requests(job.number)],
                "operations": [asdict(o) for o in self._store.tables.operations(job.key)],
                "checks": [_check_values(each) for each in self._store.checks.of(job.key)],
                "held": [_held_values(each) for each in self._store.held.of(job.key)],
                "changes": [asdict(change) for change in self._changes(job)],
            }
        )

    def held_json(self, _: Request) -> Response:
        """Return the partitions that wait for a decision, or for the run that carries it out."""
        held = self._store.held
        return _json({"held": [_held_values(h) for h in [*held.waiting(), *held.decided()]]})

    # -- error responses

    def refused(self, request: Request, error: Exception) -> Response:
        """Respond to an HTTP error, such as an unknown page or job."""
        assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type
        return self._message(request, error.status_code, error.detail, error.headers)

    def bad_filter(self, request: Request, error: Exception) -> Response:
        """Respond to an invalid query."""
        return self._message(request, 400, str(error))

    def no_store(self, request: Request, error: Exception) -> Response:
        """Respond to a store error. It may contain the store's address, so it is only logged."""
        log.error("%s: the store failed", request.url.path, exc_info=error)
        return self._message(
            request,
            503,
            "The job store does not answer, and parsers get a 503."
            " What to do: see whether its database runs, and the sidecar's log for what it said."
            " This page reloads automatically.",
        )

    def _message(
        self,
        request: Request,
        code: int,
        text: str,
        headers: Any = None,  # noqa: ANN401 - Starlette's
    ) -> Response:
        if request.url.path.startswith(_API):
            return _json({"error": text}, code)
        page = self._render(
            "message.html",
            now=self._clock(),
            text=text,
            grave=code >= 500,
            refresh=REFRESH_SECONDS if code >= 500 else 0,
        )
        page.status_code = code
        page.headers.update(headers or {})
        return page

    # -- helpers

    def _found(self, wanted: JobFilter) -> tuple[list[Job], bool]:
        """Return a page of jobs and, without counting all jobs, whether there is another."""
        jobs = self._store.jobs(
            experiment=wanted.experiment or None,
            datatype=wanted.datatype or None,
            first=wanted.first,
            last=wanted.last,
            states=set(wanted.states) or None,
            text=wanted.text or None,
            limit=PAGE + 1,
            offset=wanted.page * PAGE,
            order=wanted.order,
            reverse=wanted.reverse,
        )
        return jobs[:PAGE], len(jobs) > PAGE

    def _changes(self, job: Job) -> list[PartitionChange]:
        """Return the changes of the newest versions of the job's partition in published tables."""
        datasets = [dataset for dataset in (job.raw, job.join) if dataset]
        tables = [f"{dataset}.{job.key.datatype}" for dataset in datasets]
        changes = self._store.changes
        return [c for table in tables for c in changes.of(table, job.key.date, limit=VERSIONS)]

    def _job(self, request: Request) -> Job:
        number: int = request.path_params["number"]
        job = self._store.job(number) if number < 2**63 else None
        if job is None:
            raise HTTPException(404, f"there is no job number {number}")
        return job

    def _render(self, template: str, **values: Any) -> Response:  # noqa: ANN401 - what templates show
        html = self._templates.get_template(template).render({"refresh": REFRESH_SECONDS} | values)
        return HTMLResponse(html, headers=_HEADERS)


def _ascending(order: JobOrder, reverse: bool) -> bool:
    """Whether the values of the sorted column ascend from the first row to the last."""
    return reverse is (order in (JobOrder.RECENT, JobOrder.DATE))


def _with_durations(
    events: list[Event], job: Job, now: dt.datetime
) -> list[tuple[Event, dt.timedelta | None]]:
    """Return each event with the time until the next; ``None`` for the event that ended the job."""
    ends = [event.at for event in events[1:]]
    if events and job.state not in ENDED:
        ends.append(now)
    durations: list[dt.timedelta | None] = [
        end - event.at for event, end in zip(events, ends, strict=False)
    ]
    return list(zip(events, [*durations, None], strict=False))


def _job_values(job: Job) -> dict[str, Any]:
    values = asdict(job)
    return {"id": job.id, **values.pop("key"), **values, "priority": job.priority.name.lower()}


def _check_values(check: RecordedCheck) -> dict[str, Any]:
    return {**asdict(check.result), "run_id": check.run_id, "at": check.at}


def _held_values(held: HeldPartition) -> dict[str, Any]:
    values = asdict(held)
    key = values.pop("key")
    return {"job": values.pop("job"), "source": held.key.source, "date": key["date"], **values}


def _json(values: dict[str, Any], code: int = 200) -> Response:
    text = json.dumps(values, default=lambda value: value.isoformat(), ensure_ascii=False)
    return Response(text, code, headers=_HEADERS, media_type="application/json")
