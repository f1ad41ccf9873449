import datetime as dt
import subprocess
from collections.abc import Callable

import pytest
from prometheus import program
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families
from scraping import scraped
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from gardener_api.config import GardenerConfig
from gardener_api.jobs.job import Ask, JobKey, JobState, Priority
from gardener_api.jobs.parser_calls import Error, Update
from gardener_api.server.call_times import RequestTimes
from gardener_api.server.metrics import FAILURES, create_metrics_app
from gardener_api.store.engine import writing
from gardener_api.store.queries.metric_queries import RECENT
from gardener_api.store.store import JobStore

MakeAsk = Callable[..., Ask]
MakeKey = Callable[..., JobKey]
OpenStore = Callable[..., JobStore]
Scrape = Callable[..., dict[str, dict[str, float]]]

NAMES = {
    "gardener_started_total": "counter",
    "gardener_completed_total": "counter",
    "gardener_fail_total": "counter",
    "gardener_warning_total": "counter",
    "gardener_jobs_total": "counter",
    "gardener_config_datatypes": "gauge",
    "gardener_tasks_in_flight": "gauge",
    "gardener_state_date": "gauge",
    "gardener_state_time_histogram": "histogram",
    "gardener_files": "histogram",
    "gardener_bytes": "histogram",
    "query_cost_seconds": "histogram",
}
"""The names and types that M-Lab's alerts and dashboards read."""
LABELS = [
    "experiment", "datatype", "daily", "state", "status", "outcome", "year", "query", "priority",
    "path", "code", "le",
]  # fmt: skip
"""In the order in which the tests name them."""
NDT7 = "experiment=ndt,datatype=ndt7"


@pytest.fixture
def scrape(store: JobStore, config: GardenerConfig, now: dt.datetime) -> Scrape:
    """Scrapes; the samples by name and by labels."""

    def scrape_(at: dt.datetime = now) -> dict[str, dict[str, float]]:
        return samples(scraped(config, store, now=at))

    return scrape_


def samples(exposition: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            labels = ",".join(
                f"{name}={sample.labels[name].removesuffix('.0')}"
                for name in sorted(sample.labels, key=LABELS.index)
            )
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def nonzero(series: dict[str, float]) -> dict[str, float]:
    return {labels: value for labels, value in series.items() if value}


@pytest.fixture
def complete(store: JobStore, make_ask: MakeAsk) -> Callable[..., JobKey]:
    """Takes a job of ndt7 through its whole life, ten seconds in each state."""

    def complete_(day: int, now: dt.datetime, **asked: object) -> JobKey:
        store.enqueue([make_ask(day, **asked)], now=now)
        tick = dt.timedelta(seconds=10)
        [job] = store.lease(1, parser="10.0.0.7", now=(now := now + tick))
        for said in ("parsing", "postProcessing"):
            store.apply([Update(job.id, said)], now=(now := now + tick))
        for stage in (
            JobState.LOADING, JobState.DEDUPLICATING, JobState.COPYING, JobState.DELETING,
            JobState.JOINING, JobState.COMPLETE,
        ):  # fmt: skip
            store.stage(job.key, stage, run_id="t", now=(now := now + tick))
        return job.key

    return complete_


def test_every_metric_that_is_read_has_its_name_and_type(
    store: JobStore, config: GardenerConfig, now: dt.datetime
) -> None:
    types = dict(
        line.split()[2:]
        for line in scraped(config, store, now=now).splitlines()
        if "# TYPE" in line
    )
    assert {name: types[name] for name in NAMES} == NAMES


def test_at_the_start(scrape: Scrape) -> None:
    found = scrape()
    assert found["gardener_config_datatypes"] == {
        "experiment=ndt,datatype=annotation2": 1,
        NDT7: 1,
    }
    jobs = found["gardener_jobs_total"]
    assert jobs["experiment=,datatype=,daily=,status=starting"] == 0
    assert jobs[f"{NDT7},daily=true,status=success"] == 0
    assert len(jobs) == 1 + 2 * 2 * (1 + len(FAILURES))
    assert not any(
        value for name in found if name != "gardener_config_datatypes"
        for value in found[name].values()
    )  # fmt: skip


def test_there_are_at_most_ten_statuses() -> None:
    assert len(FAILURES) <= 10


def test_lives(
    scrape: Scrape,
    store: JobStore,
    make_ask: MakeAsk,
    make_key: MakeKey,
    complete: Callable[..., JobKey],
    now: dt.datetime,
) -> None:
    complete(1, now)
    store.enqueue([make_ask(day) for day in range(2, 6)], now=now)
    two, three, _ = store.lease(3, now=now)
    store.apply([Update(two.id, "postProcessing")], now=now)
    store.stage(make_key(2), JobState.LOADING, run_id="t", now=now)
    store.fail_stage(make_key(2), "No such field: x", run_id="t", now=now)
    store.apply([Error(three.id, "no disk")], now=now)
    found = scrape()
    assert found["gardener_tasks_in_flight"] == {
        f"{NDT7},state=init": 1,
        f"{NDT7},state=queued": 2,
        f"{NDT7},state=loading-failed": 1,
    }
    assert nonzero(found["gardener_started_total"]) == {NDT7: 4}
    assert nonzero(found["gardener_completed_total"]) == {NDT7: 1}
    assert nonzero(found["gardener_fail_total"]) == {f"{NDT7},status=loading-failed": 1}
    assert nonzero(found["gardener_warning_total"]) == {f"{NDT7},status=parseError": 1}
    assert nonzero(found["gardener_jobs_total"]) == {
        f"{NDT7},daily=false,status=success": 1,
        f"{NDT7},daily=false,status=loading-failed": 1,
    }
    dates = found["gardener_state_date"]
    assert dates[f"{NDT7},state=complete"] == dt.datetime(2024, 3, 1, tzinfo=dt.UTC).timestamp()
    assert dates[f"{NDT7},state=init"] == dt.datetime(2024, 3, 4, tzinfo=dt.UTC).timestamp()
    assert nonzero(found["gardener_attempts_total"]) == {
        f"{NDT7},outcome=parsed": 2,
        f"{NDT7},outcome=parseError": 1,
    }


def test_a_job_that_is_handed_out_twice_counts_twice(
    scrape: Scrape, store: JobStore, make_ask: MakeAsk, now: dt.datetime
) -> None:
    store.enqueue([make_ask()], now=now)
    [job] = store.lease(1, now=now)
    store.apply([Error(job.id, "x")], now=now)
    store.lease(1, now=now)
    assert scrape()["gardener_started_total"][NDT7] == 2


def test_lost_parsers_count(
    scrape: Scrape, store: JobStore, make_ask: MakeAsk, now: dt.datetime
) -> None:
    store.enqueue([make_ask()], now=now)
    for _ in range(3):
        store.lease(1, now=now)
        now += dt.timedelta(hours=5)
        store.expire(now=now)
    found = scrape(now)
    assert found["gardener_attempts_total"][f"{NDT7},outcome=leaseExpired"] == 3
    assert nonzero(found["gardener_fail_total"]) == {f"{NDT7},status=leaseExpired-failed": 1}
    assert found["gardener_tasks_in_flight"] == {f"{NDT7},state=init-failed": 1}


def test_the_time_in_a_state(
    scrape: Scrape, complete: Callable[..., JobKey], now: dt.datetime
) -> None:
    complete(1, now)
    found = scrape()
    counts = found["gardener_state_time_histogram_count"]
    states = ["queued", "init", "parsing", "postProcessing", *FAILURES[3:]]
    assert counts == {f"{NDT7},state={state.removesuffix('-failed')}": 1 for state in states}
    sums = found["gardener_state_time_histogram_sum"]
    assert set(sums.values()) == {10.0}
    buckets = found["gardener_state_time_histogram_bucket"]
    assert buckets[f"{NDT7},state=parsing,le=1"] == 0
    assert buckets[f"{NDT7},state=parsing,le=10"] == 1
    assert buckets[f"{NDT7},state=parsing,le=+Inf"] == 1


def test_no_time_is_spent_in_the_end_of_an_attempt(
    scrape: Scrape, store: JobStore, make_ask: MakeAsk, now: dt.datetime
) -> None:
    store.enqueue([make_ask()], now=now)
    [job] = store.lease(1, now=now)
    store.apply([Error(job.id, "x")], now=now + dt.timedelta(seconds=90))
    found = scrape()
    assert found["gardener_state_time_histogram_count"] == {
        f"{NDT7},state=queued": 1,
        f"{NDT7},state=init": 1,
    }
    assert found["gardener_state_time_histogram_sum"][f"{NDT7},state=init"] == 90


@pytest.fixture
def operation(store: JobStore, make_key: MakeKey, now: dt.datetime) -> Callable[..., None]:
    """Records an operation."""

    def record(day: int, operation: str, **changed: object) -> None:
        values: dict[str, object] = {
            "key": make_key(day),
            "table": "raw_ndt.ndt7",
            "run_id": "t",
            "bq_job_ids": [],
            "rows": 1,
            "bytes": 0,
            "slot_seconds": 0.0,
            "bytes_billed": 0,
            "seconds": 1.0,
            "now": now,
        }
        store.tables.record_operation(operation=operation, **values | changed)  # type: ignore[arg-type]  # a test's few

    return record


def test_loads_by_month(scrape: Scrape, operation: Callable[..., None], now: dt.datetime) -> None:
    operation(1, "load", objects=12_000, bytes=5 * 10**9)
    operation(2, "load", objects=2, bytes=10**6)
    operation(40, "load", objects=300, bytes=0)
    operation(1, "load", bytes=7)  # of before objects were kept
    operation(1, "copy", bytes=10**15)
    operation(99, "load", objects=9, bytes=9, now=now - RECENT - dt.timedelta(minutes=1))
    found = scrape()
    march = "experiment=ndt-json,datatype=ndt7,year=2024-03"
    april = "experiment=ndt-json,datatype=ndt7,year=2024-04"
    assert found["gardener_files_count"] == {march: 2, april: 1}
    assert found["gardener_files_sum"] == {march: 12_002, april: 300}
    assert found["gardener_bytes_count"] == {march: 3, april: 1}
    assert found["gardener_bytes_sum"] == {march: 5 * 10**9 + 10**6 + 7, april: 0}
    files = found["gardener_files_bucket"]
    assert [files[f"{march},le={edge}"] for edge in ("1", "10", "10000", "30000")] == [0, 1, 1, 2]
    assert files[f"{april},le=300"] == 1


def test_the_cost_of_queries(scrape: Scrape, operation: Callable[..., None]) -> None:
    operation(1, "dedup", slot_seconds=61.5)
    operation(2, "dedup", slot_seconds=0.5)
    operation(1, "join", slot_seconds=10**6)
    operation(1, "load", slot_seconds=5.0)
    found = scrape()
    assert found["query_cost_seconds_count"] == {
        "datatype=ndt7,query=Dedup": 2,
        "datatype=ndt7,query=Join": 1,
    }
    assert found["query_cost_seconds_sum"]["datatype=ndt7,query=Dedup"] == 62
    assert found["query_cost_seconds_bucket"]["datatype=ndt7,query=Dedup,le=60"] == 1
    assert found["query_cost_seconds_bucket"]["datatype=ndt7,query=Join,le=360000"] == 0


def test_what_is_settled_is_counted_once(
    store: JobStore,
    open_store: OpenStore,
    config: GardenerConfig,
    complete: Callable[..., JobKey],
    operation: Callable[..., None],
    now: dt.datetime,
) -> None:
    complete(1, now)
    operation(1, "load", objects=3)
    later = now + dt.timedelta(minutes=20)
    text_then = scraped(config, store, now=later)
    with writing(store._engine).begin() as connection:  # so that reading it again would show
        connection.execute(text("UPDATE events SET seconds = 99"))
    assert scraped(config, store, now=later) == text_then
    complete(2, later)
    operation(2, "load", objects=4, now=later)
    found = samples(scraped(config, store, now=later))
    assert found["gardener_completed_total"][NDT7] == 2
    assert found["gardener_state_time_histogram_sum"][f"{NDT7},state=parsing"] == 20
    assert found["gardener_files_sum"] == {"experiment=ndt-json,datatype=ndt7,year=2024-03": 7}
    # A process that begins here finds what is settled and what is not at the same time.
    begun = samples(scraped(config, open_store(), now=later))
    assert begun["gardener_completed_total"][NDT7] == 2
    assert begun["gardener_files_sum"] == found["gardener_files_sum"]
    again = scraped(config, store, now=later + dt.timedelta(minutes=20))
    assert samples(again)["gardener_completed_total"][NDT7] == 2
    with writing(store._engine).begin() as connection:
        connection.execute(text("UPDATE events SET seconds = 10 WHERE seconds > 0"))
    assert scraped(config, open_store(), now=later + dt.timedelta(minutes=20)) == again, (
        "after a restart"
    )


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("ends_with", ["COMMIT", "ROLLBACK"])
def test_d43_a_row_that_is_committed_late_is_counted_once(
    store: JobStore,
    config: GardenerConfig,
    complete: Callable[..., JobKey],
    now: dt.datetime,
    ends_with: str,
) -> None:
    """One sidecar is held up before its commit; rows with later numbers are committed meanwhile."""
    complete(1, now)
    later = now + dt.timedelta(days=1)
    copy = text(
        'INSERT INTO events (job, at, attempt, state, detail, "left", seconds)'
        ' SELECT job, at, attempt, state, detail, "left", seconds FROM events'
        " WHERE state = 'complete' ORDER BY number LIMIT 1"
    )
    with store._engine.connect() as held_up:
        held_up.execute(copy)
        complete(2, now)
        for _ in range(3):
            found = samples(scraped(config, store, now=later))
            assert found["gardener_completed_total"][NDT7] == 2
        held_up.exec_driver_sql(ends_with)
    expected = 3 if ends_with == "COMMIT" else 2
    for _ in range(3):
        found = samples(scraped(config, store, now=later))
        assert found["gardener_completed_total"][NDT7] == expected
    # All rows are settled now, the gap of a failed transaction notwithstanding.
    then = scraped(config, store, now=later)
    with writing(store._engine).begin() as connection:
        connection.execute(text("UPDATE events SET seconds = 99"))
    assert scraped(config, store, now=later) == then


def test_the_queue_and_the_parsers(
    scrape: Scrape, store: JobStore, make_ask: MakeAsk, now: dt.datetime
) -> None:
    minute = dt.timedelta(minutes=1)
    store.enqueue([make_ask(day) for day in (1, 2)], now=now)
    store.enqueue([make_ask(3, priority=Priority.DAILY)], now=now + minute)
    found = scrape(now + 2 * minute)
    assert found["gardener_queue_jobs"] == {
        "priority=daily": 1,
        "priority=backfill": 2,
        "priority=historical": 0,
    }
    assert found["gardener_queue_oldest_seconds"] == {
        "priority=daily": 60,
        "priority=backfill": 120,
        "priority=historical": 0,
    }
    assert found["gardener_parsers"] == {"": 0}
    store.lease(1, parser="10.0.0.7", now=now + minute)
    store.lease(1, parser="10.0.0.8", now=now)
    store.lease(1, parser="10.0.0.8", now=now + 2 * minute)
    found = scrape(now + 2 * minute)
    assert found["gardener_parsers"] == {"": 2}
    assert found["gardener_parser_silence_seconds"] == {"": 60}


def test_d19_a_daily_job_that_completes_after_midnight_counts_as_daily(
    scrape: Scrape, complete: Callable[..., JobKey]
) -> None:
    before_midnight = dt.datetime(2024, 3, 2, 23, 59, 30, tzinfo=dt.UTC)
    complete(1, before_midnight, daily=True)
    after_midnight = before_midnight + dt.timedelta(hours=1)
    assert nonzero(scrape(after_midnight)["gardener_jobs_total"]) == {
        f"{NDT7},daily=true,status=success": 1
    }


def test_a_status_that_is_not_known_is_generic(
    scrape: Scrape, store: JobStore, make_ask: MakeAsk, now: dt.datetime
) -> None:
    store.enqueue([make_ask()], now=now)
    with writing(store._engine).begin() as connection:
        connection.execute(text("""UPDATE events SET state = 'failed', "left" = 'x"y'"""))
    assert nonzero(scrape()["gardener_fail_total"]) == {f"{NDT7},status=generic": 1}


def test_requests_are_timed_by_path_and_code(
    store: JobStore, config: GardenerConfig, now: dt.datetime
) -> None:
    times = RequestTimes()
    routes = [Route(path, lambda _: Response()) for path in ("/job", "/v2/job/next")]
    api = TestClient(times.timed(Starlette(routes=routes)))
    for path in ("/job", "/v2/job/next", "/secret/1", "/secret/2"):
        api.get(path)
    app = create_metrics_app(config, store.series, clock=lambda: now, others=[times.metric])
    found = samples(TestClient(app).get("/metrics").text)
    assert found["gardener_api_request_seconds_count"] == {
        "path=/v2/job/next,code=200": 2,
        "path=other,code=404": 2,
    }


def test_open_metrics_where_it_is_asked_for(
    store: JobStore, config: GardenerConfig, complete: Callable[..., JobKey], now: dt.datetime
) -> None:
    complete(1, now)
    client = TestClient(create_metrics_app(config, store.series, clock=lambda: now))
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    response = client.get("/metrics", headers=accept)
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    families = open_metrics(response.text)  # type: ignore[no-untyped-call]  # the library's own has none
    assert {f.name for f in families} >= {name.removesuffix("_total") for name in NAMES}


def test_without_the_store_there_are_no_metrics(
    store: JobStore, config: GardenerConfig, now: dt.datetime
) -> None:
    with writing(store._engine).begin() as connection:
        connection.execute(text("ALTER TABLE events RENAME TO moved"))
    client = TestClient(create_metrics_app(config, store.series, clock=lambda: now))
    response = client.get("/metrics")
    assert response.status_code == 503
    assert response.text == "the job store does not answer; the log says why\n"


def test_promtool_accepts_the_metrics(
    store: JobStore,
    config: GardenerConfig,
    complete: Callable[..., JobKey],
    operation: Callable[..., None],
    now: dt.datetime,
) -> None:
    complete(1, now)
    operation(1, "load", objects=3, bytes=10**7)
    operation(1, "dedup", slot_seconds=3.0)
    exposition = scraped(config, store, now=now)
    checked = subprocess.run(
        [program("promtool"), "check", "metrics"],
        input=exposition,
        capture_output=True,
        text=True,
        check=False,
    )
    # Of M-Lab's names, one is not to its taste; it stays, since their dashboards read it.
    assert checked.stderr.split("\n") == [
        "gardener_state_time_histogram metric name should not include type 'histogram'",
        "",
    ]
    assert (checked.returncode, checked.stdout) == (3, "")
