"""What the tests of the metrics start with."""

import datetime as dt
from collections.abc import Callable

import pytest
from metric_samples import samples
from scraping import scraped

from gardener_api.config import GardenerConfig
from gardener_api.jobs.job import JobKey, JobRequest, JobState
from gardener_api.jobs.parser_calls import Update
from gardener_api.store.store import JobStore

Wanted = Callable[..., JobRequest]
MakeKey = Callable[..., JobKey]
Scrape = Callable[..., dict[str, dict[str, float]]]


@pytest.fixture
def scrape(store: JobStore, config: GardenerConfig, now: dt.datetime) -> Scrape:
    """Scrapes; the samples by name and by labels."""

    def scrape_(at: dt.datetime = now) -> dict[str, dict[str, float]]:
        return samples(scraped(config, store, now=at))

    return scrape_


@pytest.fixture
def complete(store: JobStore, wanted: Wanted) -> Callable[..., JobKey]:
    """Takes a job of ndt7 through its whole life, ten seconds in each state."""

    def complete_(day: int, now: dt.datetime, **asked: object) -> JobKey:
        store.enqueue([wanted(day, **asked)], now=now)
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
