import datetime as dt
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, select

from gardener_api.jobs.job import JobKey, JobRequest, JobState
from gardener_api.jobs.parser_calls import Heartbeat
from gardener_api.store import schema
from gardener_api.store.engine import open_engine, writing
from gardener_api.store.migrate import prepare
from gardener_api.store.queries.job_queries import JobOrder
from gardener_api.store.schema import StoreError
from gardener_api.store.store import JobStore

Wanted = Callable[..., JobRequest]
OpenStore = Callable[..., JobStore]


@pytest.fixture
def engine(store_url: str) -> Iterator[Engine]:
    engine = writing(open_engine(store_url))
    yield engine
    engine.dispose()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "no database URL: 'nonsense': expected sqlite"),
        ("mysql://localhost/x", "expected sqlite:///... or postgresql://..."),
        ("sqlite://", "expected a file"),
        ("sqlite:///:memory:", "expected a file"),
        ("sqlite:////nowhere/at/all/gardener.db", "unable to open database file"),
        ("postgresql://u:secret@127.0.0.1:1/x", "cannot be used"),
    ],
)
def test_no_store(url: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as caught:
        JobStore.open(url, lease=dt.timedelta(hours=1), max_attempts=3)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "gardener.db"
    path.write_bytes(b"not a database at all" * 1000)
    with pytest.raises(StoreError, match=r"gardener\.db cannot be used: file is not a database"):
        JobStore.open(f"sqlite:///{path}", lease=dt.timedelta(hours=1), max_attempts=3)
    assert path.read_bytes().startswith(b"not a database")


def test_sqlite_waits_for_the_disk(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'gardener.db'}")
    prepare(writing(engine))
    with engine.begin() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar_one() == 1
    engine.dispose()


def test_sqlite_takes_the_write_lock_at_the_beginning(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'gardener.db'}")
    prepare(writing(engine))
    other = sqlite3.connect(tmp_path / "gardener.db", timeout=0)
    with engine.begin():
        other.execute("BEGIN IMMEDIATE").close()  # a reader is in nobody's way
        other.rollback()
    with writing(engine).begin(), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    other.close()
    engine.dispose()


def test_times_are_aware(engine: Engine) -> None:
    prepare(engine)
    naive = dt.datetime(2024, 3, 1)  # noqa: DTZ001 - what must be refused
    with engine.begin() as connection, pytest.raises(Exception, match="naive and offset-aware"):
        connection.execute(select(schema.jobs).where(schema.jobs.c.created == naive))


def test_no_question_of_the_daily_work_reads_all_jobs(
    store: JobStore, wanted: Wanted, now: dt.datetime
) -> None:
    [job] = store.enqueue([wanted()], now=now)
    statements: list[tuple[str, Any]] = []

    def keep(_: Connection, __: object, statement: str, parameters: object, *___: object) -> None:
        statements.append((statement, parameters))

    engine = store._engine
    event.listen(engine, "before_cursor_execute", keep)
    store.lease(1, now=now)
    store.apply([Heartbeat(job.id)], now=now)
    store.expire(now=now)
    store.unreported("run:a", run_id="a")
    store.waiting("run:a")
    store.parsed_jobs()
    store.unreported_parses()
    store.in_tables()
    store.open_keys([job.key])
    store.latest(job.key)
    store.stage(job.key, JobState.LOADING, run_id="t", now=now)
    store.enqueue([wanted(requester="run:b")], now=now)
    store.withdraw("b", by="a test", now=now)
    for order in set(JobOrder) - {JobOrder.NEXT}:
        for reverse in (False, True):
            store.jobs(limit=10, order=order, reverse=reverse)
    event.remove(engine, "before_cursor_execute", keep)
    selects = [(s, p) for s, p in statements if s.startswith(("SELECT", "UPDATE requests"))]
    assert len(selects) > 20
    for statement, parameters in selects:
        plan = explain(engine, statement, parameters)
        faults = r"SCAN (jobs|requests)(?! USING)|Seq Scan"
        if "LIMIT" in statement:  # what is long must come in its order
            faults += r"|TEMP B-TREE|Sort"
        assert not re.search(faults, plan), f"{statement}\n{plan}"


def test_no_fact_of_the_status_page_reads_all_jobs_or_events(
    store: JobStore, now: dt.datetime
) -> None:
    statements: list[tuple[str, Any]] = []

    def keep(_: Connection, __: object, statement: str, parameters: object, *___: object) -> None:
        statements.append((statement, parameters))

    engine = store._engine
    event.listen(engine, "before_cursor_execute", keep)
    store.overview.snapshot({}, now=now)
    store.overview.parsers()
    store.overview.table_runs()
    store.checks.of(JobKey.parse("b/ndt/ndt7/20240301"))
    store.checks.failing(now.date(), now.date())
    store.checks.failing_of([JobKey.parse("b/ndt/ndt7/20240301")])
    event.remove(engine, "before_cursor_execute", keep)
    selects = [(s, p) for s, p in statements if s.startswith("SELECT")]
    assert len(selects) > 13
    for statement, parameters in selects:
        plan = explain(engine, statement, parameters)
        faults = r"SCAN (jobs|events|check_results)(?! USING)|Seq Scan"
        assert not re.search(faults, plan), statement


def explain(engine: Engine, statement: str, parameters: Any) -> str:
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            how = "EXPLAIN QUERY PLAN "
        else:
            # The tables are nearly empty: reading all is then the quickest.
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            how = "EXPLAIN "
        rows = connection.exec_driver_sql(how + statement, parameters).all()
    return "\n".join(str(row) for row in rows)
