import datetime as dt
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, inspect, select, text

from gardener_api import schema
from gardener_api.calls import Heartbeat
from gardener_api.database import open_engine, writing
from gardener_api.jobs import Ask, JobState
from gardener_api.queries import JobOrder
from gardener_api.schema import StoreError
from gardener_api.store import JobStore

MakeAsk = Callable[..., Ask]
OpenStore = Callable[..., JobStore]


@pytest.fixture
def engine(store_url: str) -> Iterator[Engine]:
    engine = writing(open_engine(store_url))
    yield engine
    engine.dispose()


def add_column(connection: Connection) -> None:
    connection.execute(text("ALTER TABLE jobs ADD COLUMN note VARCHAR"))


def fill_column(connection: Connection) -> None:
    connection.execute(text("UPDATE jobs SET note = 'migrated'"))


def fail(connection: Connection) -> None:
    raise RuntimeError("no")


def version_of(engine: Engine) -> int:
    with engine.begin() as connection:
        return int(connection.execute(select(schema.version.c.version)).scalar_one())


def test_an_empty_database_gets_the_tables(engine: Engine) -> None:
    schema.prepare(engine)
    assert set(inspect(engine).get_table_names()) == set(schema.metadata.tables)
    assert version_of(engine) == len(schema.MIGRATIONS) + 1
    schema.prepare(engine)
    assert version_of(engine) == len(schema.MIGRATIONS) + 1


def test_an_older_store_is_migrated_with_what_it_holds(
    open_store: OpenStore, engine: Engine, make_ask: MakeAsk, now: dt.datetime
) -> None:
    [job] = open_store().enqueue([make_ask()], now=now)
    schema.prepare(engine, [*schema.MIGRATIONS, add_column, fill_column])
    assert version_of(engine) == len(schema.MIGRATIONS) + 3
    with engine.begin() as connection:
        row = connection.execute(text("SELECT key, note FROM jobs")).one()
    assert tuple(row) == (str(job.key), "migrated")


def shape(engine: Engine) -> dict[str, object]:
    """Columns, keys and indexes of every table."""
    found = inspect(engine)
    return {
        table: (
            sorted((c["name"], str(c["type"]), c["nullable"]) for c in found.get_columns(table)),
            found.get_pk_constraint(table)["constrained_columns"],
            sorted(str(index["name"]) for index in found.get_indexes(table)),
        )
        for table in found.get_table_names()
    }


def test_a_store_of_the_first_version_becomes_as_a_new_one(
    engine: Engine, open_store: OpenStore, make_ask: MakeAsk, now: dt.datetime
) -> None:
    store = open_store()
    [job] = store.enqueue([make_ask()], now=now)
    operation: dict[str, Any] = {
        "key": job.key, "table": "tmp_ndt.ndt7", "operation": "load", "run_id": "t",
        "bq_job_ids": [], "rows": 1, "bytes": 2, "slot_seconds": 0.0, "bytes_billed": 0,
        "seconds": 1.0, "now": now,
    }  # fmt: skip
    store.tables.record_operation(**operation)
    new = shape(engine)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE holds"))
        for index in (
            "jobs_date",
            "jobs_source",
            "events_of_parsers",
            "partitions_day_before",
        ):
            connection.execute(text(f"DROP INDEX {index}"))
        connection.execute(text("ALTER TABLE operations DROP COLUMN objects"))
        connection.execute(schema.version.update().values(version=1))
    migrated = open_store()
    assert shape(engine) == new
    assert version_of(engine) == schema.NEWEST
    migrated.tables.record_operation(**operation, objects=3)
    assert [o.objects for o in migrated.tables.operations(job.key)] == [None, 3]
    assert migrated.job(job.number) == job


def test_a_failed_migration_changes_nothing(engine: Engine) -> None:
    schema.prepare(engine)
    with pytest.raises(RuntimeError, match="no"):
        schema.prepare(engine, [*schema.MIGRATIONS, add_column, fail])
    assert version_of(engine) == len(schema.MIGRATIONS) + 1
    assert "note" not in {column["name"] for column in inspect(engine).get_columns("jobs")}


def test_a_newer_store_is_refused(store_url: str, engine: Engine, open_store: OpenStore) -> None:
    schema.prepare(engine)
    with engine.begin() as connection:
        connection.execute(schema.version.update().values(version=99))
    with pytest.raises(StoreError, match=r"version 99: expected at most .* newer gardener"):
        open_store()


def test_somebody_elses_tables_are_refused(engine: Engine, open_store: OpenStore) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE jobs (number INTEGER)"))
    with pytest.raises(StoreError, match="not of a gardener: jobs"):
        open_store()


def test_a_store_without_its_version_is_refused(engine: Engine, open_store: OpenStore) -> None:
    schema.prepare(engine)
    with engine.begin() as connection:
        connection.execute(schema.version.delete())
    with pytest.raises(StoreError, match="gardener_version has 0 rows: expected one"):
        open_store()


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
    schema.prepare(writing(engine))
    with engine.begin() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar_one() == 1
    engine.dispose()


def test_sqlite_takes_the_write_lock_at_the_beginning(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'gardener.db'}")
    schema.prepare(writing(engine))
    other = sqlite3.connect(tmp_path / "gardener.db", timeout=0)
    with engine.begin():
        other.execute("BEGIN IMMEDIATE").close()  # a reader is in nobody's way
        other.rollback()
    with writing(engine).begin(), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    other.close()
    engine.dispose()


def test_times_are_aware(engine: Engine) -> None:
    schema.prepare(engine)
    naive = dt.datetime(2024, 3, 1)  # noqa: DTZ001 - what must be refused
    with engine.begin() as connection, pytest.raises(Exception, match="naive and offset-aware"):
        connection.execute(select(schema.jobs).where(schema.jobs.c.created == naive))


def test_no_question_of_the_daily_work_reads_all_jobs(
    store: JobStore, make_ask: MakeAsk, now: dt.datetime
) -> None:
    [job] = store.enqueue([make_ask()], now=now)
    statements: list[tuple[str, Any]] = []

    def keep(_: Connection, __: object, statement: str, parameters: object, *___: object) -> None:
        statements.append((statement, parameters))

    engine = store._engine
    event.listen(engine, "before_cursor_execute", keep)
    store.lease(1, now=now)
    store.apply([Heartbeat(job.id)], now=now)
    store.expire(now=now)
    store.unreported("run:a")
    store.waiting("run:a")
    store.parsed_jobs()
    store.unannounced()
    store.in_tables()
    store.open_keys([job.key])
    store.latest(job.key)
    store.stage(job.key, JobState.LOADING, run_id="t", now=now)
    store.enqueue([make_ask(requester="run:b")], now=now)
    for order in set(JobOrder) - {JobOrder.NEXT}:
        for reverse in (False, True):
            store.jobs(limit=10, order=order, reverse=reverse)
    event.remove(engine, "before_cursor_execute", keep)
    selects = [(s, p) for s, p in statements if s.startswith("SELECT")]
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
    store.overview.facts({}, now=now)
    store.overview.parsers()
    event.remove(engine, "before_cursor_execute", keep)
    selects = [(s, p) for s, p in statements if s.startswith("SELECT")]
    assert len(selects) > 8
    for statement, parameters in selects:
        plan = explain(engine, statement, parameters)
        assert not re.search(r"SCAN (jobs|events)(?! USING)|Seq Scan", plan), statement


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
