import datetime as dt
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from postgres import empty_database, postgresql_server
from sqlalchemy.exc import OperationalError

from gardener_api.jobs.job import JobRequest
from gardener_api.store import engine as database
from gardener_api.store.engine import default_store_url, store_file
from gardener_api.store.schema import StoreError
from gardener_api.store.store import JobStore

Wanted = Callable[..., JobRequest]
OpenStore = Callable[..., JobStore]


@pytest.fixture
def sqlite_path(tmp_path: Path) -> Path:
    return tmp_path / "gardener.db"


@pytest.fixture
def sqlite_store(sqlite_path: Path) -> JobStore:
    return JobStore.open(f"sqlite:///{sqlite_path}", lease=dt.timedelta(hours=5), max_attempts=3)


def test_a_writer_waits_for_another(
    sqlite_store: JobStore, sqlite_path: Path, wanted: Wanted, now: dt.datetime
) -> None:
    other = sqlite3.connect(sqlite_path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE").close()
    done = threading.Event()

    def enqueue() -> None:
        sqlite_store.enqueue([wanted()], now=now)
        done.set()

    thread = threading.Thread(target=enqueue)
    thread.start()
    assert not done.wait(0.05)
    assert sqlite_store.jobs(limit=1) == [], "a reader does not wait"
    other.execute("COMMIT").close()
    thread.join(10)
    assert done.is_set()
    other.close()
    sqlite_store.close()


def test_a_writer_gives_up_and_can_try_again(
    sqlite_store: JobStore,
    sqlite_path: Path,
    wanted: Wanted,
    now: dt.datetime,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(database, "_BUSY_SECONDS", 0)
    other = sqlite3.connect(sqlite_path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE").close()
    with pytest.raises(OperationalError, match="database is locked"):
        sqlite_store.enqueue([wanted()], now=now)
    other.execute("COMMIT").close()
    assert len(sqlite_store.enqueue([wanted()], now=now)) == 1
    other.close()
    sqlite_store.close()


def test_a_connection_that_the_server_closed_costs_no_call(
    postgresql_url: str, wanted: Wanted, now: dt.datetime
) -> None:
    with (
        empty_database(postgresql_url) as url,
        psycopg.connect(url, autocommit=True) as connection,
        closing(
            JobStore.open(
                f"{url}&application_name=closed", lease=dt.timedelta(hours=5), max_attempts=3
            )
        ) as store,
    ):
        store.enqueue([wanted()], now=now)
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE application_name = 'closed'"
        ).fetchall()
        assert ended == [(True,)]
        assert len(store.lease(1, now=now)) == 1


def test_a_patient_store_waits_for_a_restart(wanted: Wanted, now: dt.datetime) -> None:
    with postgresql_server("fsync=off") as server:
        patient = JobStore.open(
            server.url, lease=dt.timedelta(hours=5), max_attempts=3, connect_timeout=60
        )
        with closing(patient):
            server.stop()
            thread = threading.Timer(0.3, server.start)
            thread.start()
            [job] = patient.enqueue([wanted()], now=now)
            thread.join()
            assert patient.job(job.number) == job


def test_a_patient_store_gives_up_and_says_what_to_do(tmp_path: Path) -> None:
    url = f"postgresql://gardener:secret@/postgres?host={tmp_path}"
    engine = database.open_engine(url, connect_timeout=0.1)
    said = r"does not answer for \d+ s: .*What to do: see whether its database runs"
    with pytest.raises(StoreError, match=said) as error, engine.begin():
        pass
    assert "secret" not in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_others_fail_at_once(tmp_path: Path) -> None:
    engine = database.open_engine(f"postgresql://gardener@/postgres?host={tmp_path}")
    with pytest.raises(OperationalError), engine.begin():
        pass


@pytest.mark.parametrize("name", ["a b", "a?b", "a#b", "a%b", "a%20b", "a+b", "a:b@c", "\u00fc"])
def test_d40_the_store_is_in_its_home_whatever_the_path(tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    home.mkdir()
    url = default_store_url(home)
    JobStore.open(url, lease=dt.timedelta(hours=5), max_attempts=3).close()
    assert (home / "gardener.db").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert store_file(url) == home / "gardener.db"


def test_d40_a_home_may_be_named_as_in_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/gardener")
    assert default_store_url("~/dagster") == "sqlite:////home/gardener/dagster/gardener.db"


def test_a_store_in_postgresql_has_no_file() -> None:
    assert store_file("postgresql://u@h/d") is None
    with pytest.raises(StoreError, match="no database URL: 'nonsense'"):
        store_file("nonsense")
