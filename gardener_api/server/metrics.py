"""Prometheus metrics, computed from the store whenever they are scraped.

So they survive restarts, include the work of Dagster's runs, and are the same from all sidecars on
one store. Names and labels are those of M-Lab's alerts and dashboards; the metrics of ``_own`` are
new. ``metric_queries`` computes the values; ``prometheus_client`` writes the text format.
"""

import datetime as dt
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from gardener_api.config import GardenerConfig
from gardener_api.jobs.job import (
    LEASE_EXPIRED,
    PARSE_ERROR,
    PARSING_STATES,
    TABLE_STATES,
    JobState,
    Priority,
)
from gardener_api.store.queries.metric_queries import (
    BYTES,
    FILES,
    SLOT_SECONDS,
    STATE_SECONDS,
    Happened,
    InFlight,
    Loads,
)

if TYPE_CHECKING:
    from gardener_api.store.queries.metric_queries import MetricQueries

log = logging.getLogger(__name__)

FAILURES = tuple(
    f"{left}-failed"
    for left in (PARSE_ERROR, LEASE_EXPIRED, JobState.POST_PROCESSING, *sorted(TABLE_STATES))
)
"""Statuses of failed jobs; there are fewer than ten, so a series for each is cheap."""
WARNINGS = (PARSE_ERROR, LEASE_EXPIRED)
OTHER = "generic"
"""The status of all other failures."""

_EPOCH = dt.date(1970, 1, 1)
_SOURCE = ("experiment", "datatype")
_ATTEMPTS = {
    JobState.POST_PROCESSING: "parsed",
    PARSE_ERROR: PARSE_ERROR,
    LEASE_EXPIRED: LEASE_EXPIRED,
}
_QUERIES = {"dedup": "Dedup", "join": "Join"}

Clock = Callable[[], dt.datetime]
Labels = tuple[str, ...]


def create_metrics_app(
    config: GardenerConfig,
    queries: "MetricQueries",
    *,
    clock: Clock,
    others: Iterable[Collector] = (),
) -> Starlette:
    """Create the application of the metrics port: ``/metrics``.

    Args:
        config: The configuration; the metrics include all of its sources.
        queries: The metric queries of the job store.
        clock: Returns the time, aware and UTC.
        others: Collectors of the process's own metrics.
    """
    registry = CollectorRegistry()
    registry.register(StoreCollector(config, queries, clock))
    for collector in others:
        registry.register(collector)

    async def scrape(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        try:
            text = await run_in_threadpool(encode, registry)
        except SQLAlchemyError:
            log.exception("the metrics could not be computed")
            return PlainTextResponse("the job store does not answer; the log says why\n", 503)
        return Response(text, headers={"Content-Type": content_type})

    return Starlette(routes=[Route("/metrics", scrape)])


class StoreCollector(Collector):
    """Collects the metrics that are computed from the store."""

    def __init__(self, config: GardenerConfig, queries: "MetricQueries", clock: Clock) -> None:
        self._config, self._queries, self._clock = config, queries, clock

    def collect(self) -> Iterator[Metric]:
        """Yield the current metrics."""
        now = self._clock()
        sources: list[Labels] = [
            (source.experiment, source.datatype) for source in self._config.sources
        ]
        happened = self._queries.happened()
        yield _gauge(
            "gardener_config_datatypes", "Configured sources.", _SOURCE, dict.fromkeys(sources, 1)
        )
        yield _in_flight(self._queries.in_flight())
        yield from _counters(sources, happened)
        yield _newest(happened)
        yield _state_times(happened)
        for name, text, edges, loads in (
            ("gardener_files", "Objects of a load.", FILES, self._queries.files(now=now)),
            ("gardener_bytes", "Bytes of a load.", BYTES, self._queries.bytes(now=now)),
        ):
            yield _loads(name, text, edges, loads)
        yield _histogram(
            "query_cost_seconds",
            "Slot seconds of a query.",
            ("datatype", "query"),
            SLOT_SECONDS,
            (
                ((c.datatype, _QUERIES[c.operation]), c.edge, c.count, c.slot_seconds)
                for c in self._queries.costs()
            ),
        )
        yield from self._own(sources, happened, now)

    def _own(
        self, sources: Sequence[Labels], happened: Sequence[Happened], now: dt.datetime
    ) -> Iterator[Metric]:
        """Yield the metrics that the old gardener did not have."""
        queues = {Priority(queue.priority).name.lower(): queue for queue in self._queries.queues()}
        names = [priority.name.lower() for priority in Priority]
        yield _gauge(
            "gardener_queue_jobs",
            "Jobs that wait for a parser.",
            ("priority",),
            {(name,): queues[name].length if name in queues else 0 for name in names},
        )
        yield _gauge(
            "gardener_queue_oldest_seconds",
            "How long the first of the waiting jobs has waited.",
            ("priority",),
            {
                (name,): _seconds(now - queues[name].oldest) if name in queues else 0
                for name in names
            },
        )
        yield _counter(
            "gardener_attempts_total",
            "Attempts that ended, by how.",
            (*_SOURCE, "outcome"),
            {(*source, outcome): 0 for source in sources for outcome in _ATTEMPTS.values()},
            (
                ((*_source(h), _ATTEMPTS[h.state]), h.count)
                for h in happened
                if h.state in (PARSE_ERROR, LEASE_EXPIRED)
                or (h.state == JobState.POST_PROCESSING and h.left in PARSING_STATES)
            ),
        )
        none_held: dict[Labels, float] = dict.fromkeys(sources, 0)
        yield _gauge(
            "gardener_held_partitions",
            "Partitions that audits hold and that wait for a decision.",
            _SOURCE,
            none_held | self._queries.held(),
        )
        calls = self._queries.last_calls()
        silence = now - min(calls.values()) if calls else dt.timedelta()
        yield _gauge("gardener_parsers", "Parsers that hold a job.", (), {(): len(calls)})
        yield _gauge(
            "gardener_parser_silence_seconds",
            "Since the last call of that parser with a job that has been silent for longest.",
            (),
            {(): _seconds(silence)},
        )


def _counters(sources: Sequence[Labels], happened: Sequence[Happened]) -> Iterator[Metric]:
    for name, state, text in (
        ("gardener_started_total", JobState.INIT, "Jobs handed out to parsers."),
        ("gardener_completed_total", JobState.COMPLETE, "Jobs completed."),
    ):
        yield _counter(
            name,
            text,
            _SOURCE,
            dict.fromkeys(sources, 0),
            ((_source(h), h.count) for h in happened if h.state == state),
        )
    yield _counter(
        "gardener_fail_total",
        "Jobs failed, by what they failed in.",
        (*_SOURCE, "status"),
        {(*source, status): 0 for source in sources for status in FAILURES},
        (((*_source(h), _failure(h)), h.count) for h in happened if h.state == JobState.FAILED),
    )
    yield _counter(
        "gardener_warning_total",
        "Attempts that ended without a parse.",
        (*_SOURCE, "status"),
        {(*source, status): 0 for source in sources for status in WARNINGS},
        (((*_source(h), h.state), h.count) for h in happened if h.state in WARNINGS),
    )
    # One alert fires if there are no series, others on the increase of a series: each series must
    # exist from the start, or its first increment would be missed.
    zeros = {("", "", "", "starting"): 0} | {
        (*source, daily, status): 0
        for source in sources
        for daily in ("true", "false")
        for status in ("success", *FAILURES)
    }
    yield _counter(
        "gardener_jobs_total",
        "Jobs ended.",
        (*_SOURCE, "daily", "status"),
        zeros,
        (
            (
                (
                    *_source(h),
                    "true" if h.daily else "false",
                    "success" if h.state == JobState.COMPLETE else _failure(h),
                ),
                h.count,
            )
            for h in happened
            if h.state in (JobState.COMPLETE, JobState.FAILED)
        ),
    )


def _in_flight(jobs: Iterable[InFlight]) -> Metric:
    counts: dict[Labels, float] = {}
    for job in jobs:
        state = f"{job.failed_in}-failed" if job.failed_in else job.state
        labels = (job.experiment, job.datatype, state)
        counts[labels] = counts.get(labels, 0) + job.count
    return _gauge(
        "gardener_tasks_in_flight", "Jobs that are in a state.", (*_SOURCE, "state"), counts
    )


def _newest(happened: Iterable[Happened]) -> Metric:
    newest: dict[Labels, float] = {}
    for h in happened:
        labels = (*_source(h), h.state)
        newest[labels] = max(newest.get(labels, 0.0), (h.newest - _EPOCH).days * 86400.0)
    return _gauge(
        "gardener_state_date",
        "The newest date that reached a state, in seconds since 1970.",
        (*_SOURCE, "state"),
        newest,
    )


def _state_times(happened: Iterable[Happened]) -> Metric:
    states = set(JobState)
    return _histogram(
        "gardener_state_time_histogram",
        "Seconds spent in the state that was left.",
        (*_SOURCE, "state"),
        STATE_SECONDS,
        (
            ((*_source(h), h.left), h.edge, h.count, h.seconds)
            for h in happened
            if h.left in states  # not events, such as the end of an attempt: they have no duration
        ),
    )


def _loads(name: str, text: str, edges: Sequence[int], loads: Iterable[Loads]) -> Metric:
    return _histogram(
        name,
        text,
        (*_SOURCE, "year"),
        edges,
        (
            (
                (f"{load.experiment}-json", load.datatype, load.month),
                load.edge,
                load.count,
                load.total,
            )
            for load in loads
        ),
    )


def _gauge(name: str, text: str, names: Sequence[str], values: Mapping[Labels, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=names)
    for labels, value in sorted(values.items()):
        family.add_metric(labels, value)
    return family


def _counter(
    name: str,
    text: str,
    names: Sequence[str],
    zeros: Mapping[Labels, float],
    counts: Iterable[tuple[Labels, float]],
) -> Metric:
    """Make a counter from initial values (``zeros``) and counts to add to them."""
    total = dict(zeros)
    for labels, count in counts:
        total[labels] = total.get(labels, 0) + count
    family = CounterMetricFamily(name, text, labels=names)
    for labels, value in sorted(total.items()):
        family.add_metric(labels, value)
    return family


def _histogram(
    name: str,
    text: str,
    names: Sequence[str],
    edges: Sequence[int],
    parts: Iterable[tuple[Labels, int, int, float]],
) -> Metric:
    """Make a histogram from parts: labels, index of the bucket's edge, count and sum."""
    counts: dict[Labels, list[int]] = {}
    sums: dict[Labels, float] = {}
    for labels, edge, count, total in parts:
        counts.setdefault(labels, [0] * (len(edges) + 1))[edge] += count
        sums[labels] = sums.get(labels, 0.0) + total
    family = HistogramMetricFamily(name, text, labels=names)
    uppers = [*map(floatToGoString, edges), "+Inf"]
    for labels, at_edges in sorted(counts.items()):
        buckets = list(zip(uppers, accumulate(at_edges), strict=True))
        family.add_metric(labels, buckets, sums[labels])
    return family


def _failure(happened: Happened) -> str:
    status = f"{happened.left}-failed"
    return status if status in FAILURES else OTHER


def _source(happened: Happened) -> Labels:
    return happened.experiment, happened.datatype


def _seconds(duration: dt.timedelta) -> float:
    return max(0.0, duration.total_seconds())
