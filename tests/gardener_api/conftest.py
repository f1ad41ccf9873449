"""Stores to test with: every test of a store runs on SQLite and on a real PostgreSQL."""

import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import job_requests
import pytest
from postgres import empty_database, postgresql

from gardener_api.config import GardenerConfig
from gardener_api.jobs.job import JobKey, JobRequest
from gardener_api.store.store import JobStore

NOW = dt.datetime(2024, 3, 2, 10, 30, tzinfo=dt.UTC)

MakeKey = Callable[..., JobKey]
Wanted = Callable[..., JobRequest]
OpenStore = Callable[..., JobStore]


@pytest.fixture
def now() -> dt.datetime:
    """A time; tests add to it."""
    return NOW


@pytest.fixture
def make_key() -> MakeKey:
    """Makes a key of ndt7, of a day of March 2024."""

    def make(day: int = 1, datatype: str = "ndt7") -> JobKey:
        return job_requests.make_key(dt.date(2024, 3, 1) + dt.timedelta(days=day - 1), datatype)

    return make


@pytest.fixture
def wanted() -> Wanted:
    """Makes a request for ndt7, of a day of March 2024."""

    def make(day: int = 1, requester: str = "run:a", **changed: Any) -> JobRequest:
        date = dt.date(2024, 3, 1) + dt.timedelta(days=day - 1)
        return job_requests.wanted(date, requester=requester, **changed)

    return make


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """A PostgreSQL server for all tests; each has a database of its own in it."""
    # What is committed need not survive this machine's end: tests would only wait for it.
    with postgresql("fsync=off", "max_connections=200") as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'gardener.db'}"
        return
    with empty_database(request.getfixturevalue("postgresql_url")) as url:
        yield url


@pytest.fixture
def open_store(store_url: str) -> Iterator[OpenStore]:
    """Opens the test's store, each time as a new process would."""
    opened: list[JobStore] = []

    def open_(*, lease: dt.timedelta = dt.timedelta(hours=5), max_attempts: int = 3) -> JobStore:
        opened.append(JobStore.open(store_url, lease=lease, max_attempts=max_attempts))
        return opened[-1]

    yield open_
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: OpenStore) -> JobStore:
    """An empty store: leases of five hours, three attempts."""
    return open_store()


@pytest.fixture
def config() -> GardenerConfig:
    """Two sources, ndt7 joined with annotation2."""
    source = {"bucket": "archive-mlab-oti", "experiment": "ndt"}
    return GardenerConfig.model_validate(
        {
            "start_date": "2024-03-01",
            "tracker": {"timeout": "5h"},
            "sources": [
                source | {"datatype": "annotation2"},
                source | {"datatype": "ndt7", "target_datasets": {"join": "ndt"}},
            ],
        }
    )
