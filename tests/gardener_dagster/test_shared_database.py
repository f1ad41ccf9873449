"""Dagster's storage and the job store in one PostgreSQL database, as docs/deploy.md has it."""

import datetime as dt
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg
import job_requests
import psycopg
import pytest
import yaml
from postgres import empty_database, postgresql
from sqlalchemy import make_url

from gardener_api.store.store import JobStore

NOW = dt.datetime(2024, 3, 2, 10, 30, tzinfo=dt.UTC)
PARTITIONS = dg.DailyPartitionsDefinition("2024-03-01", end_date="2024-03-05")


@dg.asset(partitions_def=PARTITIONS)
def made() -> None:
    """An asset to use Dagster's storage with."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgresql("fsync=off") as url:
        yield url


@pytest.fixture
def url(server: str) -> Iterator[str]:
    with empty_database(server) as url:
        yield url


def open_store(url: str) -> JobStore:
    return JobStore.open(url, lease=dt.timedelta(hours=5), max_attempts=3)


def open_dagster(url: str, home: Path) -> dg.DagsterInstance:
    parsed = make_url(url)
    storage = {
        "scheme": "postgresql+psycopg2",  # SQLAlchemy 2.1 takes psycopg 3 for plain postgresql
        "username": parsed.username,
        "password": "",
        "hostname": "",
        "db_name": parsed.database,
        "params": {"host": parsed.query["host"]},  # the server listens on a socket's path only
    }
    home.mkdir(exist_ok=True)
    (home / "dagster.yaml").write_text(
        yaml.safe_dump({"storage": {"postgres": {"postgres_db": storage}}})
    )
    return dg.DagsterInstance.from_config(str(home))


def use_dagster(instance: dg.DagsterInstance) -> None:
    """Write to and read from each of its three storages."""
    result = dg.materialize([made], partition_key="2024-03-01", instance=instance)
    assert result.success
    assert instance.get_run_by_id(result.run_id) is not None
    assert instance.get_materialized_partitions(dg.AssetKey("made")) == {"2024-03-01"}
    assert instance.all_instigator_state() == []  # its table is called jobs, as the store's


def use_store(store: JobStore) -> None:
    [job] = store.enqueue([job_requests.wanted(dt.date(2024, 3, 1), requester="run:a")], now=NOW)
    assert [leased.number for leased in store.lease(1, now=NOW)] == [job.number]


@pytest.mark.parametrize("first", ["the store", "dagster"])
def test_d32_dagster_and_the_store_share_a_database(url: str, tmp_path: Path, first: str) -> None:
    if first == "dagster":
        open_dagster(url, tmp_path / "first").dispose()
    with (
        closing(open_store(url)) as store,
        open_dagster(url, tmp_path / "home") as instance,
        closing(open_store(url)) as another,
    ):
        use_store(store)
        use_dagster(instance)
        assert len(another.jobs(limit=10)) == 1


def test_d32_a_store_of_before_makes_room_for_dagster(url: str, tmp_path: Path) -> None:
    folder = Path(__file__).parents[1] / "gardener_api/store/old_stores"
    with psycopg.connect(url, autocommit=True) as connection:
        for name in ("version_1_postgresql.sql", "data.sql"):
            connection.execute((folder / name).read_text().encode())
        connection.execute("INSERT INTO gardener_version (version) VALUES (1)")
    with closing(open_store(url)) as store, open_dagster(url, tmp_path / "home") as instance:
        use_dagster(instance)
        assert [job.number for job in store.jobs(limit=10)] == [1]
