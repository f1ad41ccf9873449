"""Prometheus metrics, computed from the store whenever they are scraped.

So they survive restarts, and several sidecars on one store tell the same. Names and labels are
those that M-Lab's alerts and dashboards read.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gardener_api.config import GardenerConfig
from gardener_api.jobs import LEASE_EXPIRED, PARSE_ERROR, JobState
from gardener_api.queries import EventCount, InFlight

if TYPE_CHECKING:
    from gardener_api.queries import JobQueries

_EPOCH = dt.date(1970, 1, 1)
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})

Labels = tuple[tuple[str, str], ...]
Family = tuple[str, str, str, Mapping[Labels, float]]


def create_metrics_app(config: GardenerConfig, store: "JobQueries") -> Starlette:
    """The application of the metrics port: ``/metrics``.

    Args:
        config: Every source of it is told.
        store: What is counted.
    """

    def compute() -> str:
        return render(families(config, in_flight=store.in_flight(), events=store.event_counts()))

    return Starlette(routes=[Route("/metrics", _scrape(compute))])


def _scrape(compute: Callable[[], str]) -> Callable[[Request], object]:
    async def scrape(_: Request) -> Response:
        return Response(await run_in_threadpool(compute), media_type=_CONTENT_TYPE)

    return scrape


def families(
    config: GardenerConfig, *, in_flight: Iterable[InFlight], events: Iterable[EventCount]
) -> Iterator[Family]:
    """All metrics, as name, type, help and samples."""
    events = list(events)
    yield (
        "gardener_config_datatypes",
        "gauge",
        "Configured sources.",
        {_labels(experiment=s.experiment, datatype=s.datatype): 1 for s in config.sources},
    )
    yield (
        "gardener_tasks_in_flight",
        "gauge",
        "Jobs that are in a state.",
        _total(
            (_labels(experiment=f.experiment, datatype=f.datatype, state=_state(f)), f.count)
            for f in in_flight
        ),
    )
    for name, state, text in (
        ("gardener_started_total", JobState.INIT, "Jobs handed out to parsers."),
        ("gardener_completed_total", JobState.COMPLETE, "Jobs completed."),
    ):
        yield (
            name,
            "counter",
            text,
            _total((_source(e), e.count) for e in events if e.state == state),
        )
    yield (
        "gardener_fail_total",
        "counter",
        "Jobs failed, by what they failed in.",
        _total(
            (_source(e) + _labels(status=_failure(e)), e.count)
            for e in events
            if e.state == JobState.FAILED
        ),
    )
    yield (
        "gardener_warning_total",
        "counter",
        "Attempts that ended without a parse.",
        _total(
            (_source(e) + _labels(status=e.state), e.count)
            for e in events
            if e.state in (PARSE_ERROR, LEASE_EXPIRED)
        ),
    )
    yield "gardener_jobs_total", "counter", "Jobs ended.", _jobs_total(events)
    yield (
        "gardener_state_date",
        "gauge",
        "The newest date that reached a state, in seconds since 1970.",
        _newest(events),
    )


def render(metrics: Iterable[Family]) -> str:
    """Metrics in Prometheus' text format."""
    lines: list[str] = []
    for name, kind, text, samples in metrics:
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
        for labels, value in sorted(samples.items()):
            described = ",".join(f'{key}="{val.translate(_ESCAPES)}"' for key, val in labels)
            lines.append(f"{name}{{{described}}} {value:.15g}")
    return "\n".join(lines) + "\n"


def _jobs_total(events: Iterable[EventCount]) -> dict[Labels, float]:
    # One alert is that there is no series at all: so there is one from the start.
    samples = {_labels(experiment="", datatype="", daily="", status="starting"): 0.0}
    return samples | _total(
        (
            _source(e)
            + _labels(
                daily="true" if e.daily else "false",
                status="success" if e.state == JobState.COMPLETE else _failure(e),
            ),
            e.count,
        )
        for e in events
        if e.state in (JobState.COMPLETE, JobState.FAILED)
    )


def _newest(events: Iterable[EventCount]) -> dict[Labels, float]:
    newest: dict[Labels, float] = {}
    for event in events:
        labels = _source(event) + _labels(state=event.state)
        newest[labels] = max(newest.get(labels, 0.0), (event.newest - _EPOCH).days * 86400.0)
    return newest


def _state(jobs: InFlight) -> str:
    return f"{jobs.failed_in}-failed" if jobs.failed_in else jobs.state


def _failure(event: EventCount) -> str:
    return f"{event.left}-failed"


def _source(event: EventCount) -> Labels:
    return _labels(experiment=event.experiment, datatype=event.datatype)


def _labels(**labels: str) -> Labels:
    return tuple(labels.items())


def _total(counts: Iterable[tuple[Labels, float]]) -> dict[Labels, float]:
    total: dict[Labels, float] = {}
    for labels, count in counts:
        total[labels] = total.get(labels, 0.0) + count
    return total
