"""The metrics of the tables: loads and the cost of queries, each counted once."""

import datetime as dt
from collections.abc import Callable

import pytest
from metric_samples import NDT7, samples
from scraping import scraped
from sqlalchemy import text

from gardener_api.config import GardenerConfig
from gardener_api.jobs.job import JobKey
from gardener_api.store.engine import writing
from gardener_api.store.queries.metric_queries import RECENT
from gardener_api.store.store import JobStore

OpenStore = Callable[..., JobStore]
Scrape = Callable[..., dict[str, dict[str, float]]]


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
