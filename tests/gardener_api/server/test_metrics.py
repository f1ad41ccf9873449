import datetime as dt
import subprocess
from collections.abc import Callable

from metric_samples import NDT7, nonzero, samples
from prometheus import program
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from scraping import scraped
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from gardener_api.config import GardenerConfig
from gardener_api.jobs.job import JobKey, JobRequest, JobState, Priority
from gardener_api.jobs.parser_calls import Error, Update
from gardener_api.server.call_times import RequestTimes
from gardener_api.server.metrics import FAILURES, create_metrics_app
from gardener_api.store.engine import writing
from gardener_api.store.store import JobStore

Wanted = Callable[..., JobRequest]
MakeKey = Callable[..., JobKey]
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
    wanted: Wanted,
    make_key: MakeKey,
    complete: Callable[..., JobKey],
    now: dt.datetime,
) -> None:
    complete(1, now)
    store.enqueue([wanted(day) for day in range(2, 6)], now=now)
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
    scrape: Scrape, store: JobStore, wanted: Wanted, now: dt.datetime
) -> None:
    store.enqueue([wanted()], now=now)
    [job] = store.lease(1, now=now)
    store.apply([Error(job.id, "x")], now=now)
    store.lease(1, now=now)
    assert scrape()["gardener_started_total"][NDT7] == 2


def test_lost_parsers_count(
    scrape: Scrape, store: JobStore, wanted: Wanted, now: dt.datetime
) -> None:
    store.enqueue([wanted()], now=now)
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
    scrape: Scrape, store: JobStore, wanted: Wanted, now: dt.datetime
) -> None:
    store.enqueue([wanted()], now=now)
    [job] = store.lease(1, now=now)
    store.apply([Error(job.id, "x")], now=now + dt.timedelta(seconds=90))
    found = scrape()
    assert found["gardener_state_time_histogram_count"] == {
        f"{NDT7},state=queued": 1,
        f"{NDT7},state=init": 1,
    }
    assert found["gardener_state_time_histogram_sum"][f"{NDT7},state=init"] == 90


def test_the_queue_and_the_parsers(
    scrape: Scrape, store: JobStore, wanted: Wanted, now: dt.datetime
) -> None:
    minute = dt.timedelta(minutes=1)
    store.enqueue([wanted(day) for day in (1, 2)], now=now)
    store.enqueue([wanted(3, priority=Priority.DAILY)], now=now + minute)
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
    scrape: Scrape, store: JobStore, wanted: Wanted, now: dt.datetime
) -> None:
    store.enqueue([wanted()], now=now)
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
    app = create_metrics_app(config, store.metrics, clock=lambda: now, others=[times.metric])
    found = samples(TestClient(app).get("/metrics").text)
    assert found["gardener_api_request_seconds_count"] == {
        "path=/v2/job/next,code=200": 2,
        "path=other,code=404": 2,
    }


def test_open_metrics_where_it_is_asked_for(
    store: JobStore, config: GardenerConfig, complete: Callable[..., JobKey], now: dt.datetime
) -> None:
    complete(1, now)
    client = TestClient(create_metrics_app(config, store.metrics, clock=lambda: now))
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
    client = TestClient(create_metrics_app(config, store.metrics, clock=lambda: now))
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
