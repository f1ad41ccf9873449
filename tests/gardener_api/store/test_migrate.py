"""Stores of all versions, with data in them, come up to the newest one; what is no store does not.

The tables of version 1 are in ``old_stores``, as the gardener of that version made them; what each
later version changed is below, as its migration did it.
"""

import contextlib
import datetime as dt
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from postgres import empty_database
from sqlalchemy import Connection, Engine, create_engine, inspect, make_url, select, text

from gardener_api.jobs.job import JobRequest, JobState
from gardener_api.store import schema
from gardener_api.store.engine import SCHEMA, open_engine, writing
from gardener_api.store.migrate import migrate, prepare
from gardener_api.store.schema import StoreError
from gardener_api.store.store import JobStore

Wanted = Callable[..., JobRequest]
OpenStore = Callable[..., JobStore]

OLD_STORES = Path(__file__).parent / "old_stores"
HOLDS = (
    'CREATE TABLE holds ("table" VARCHAR NOT NULL, date DATE NOT NULL, run_id VARCHAR NOT NULL,'
    ' since BIGINT NOT NULL, PRIMARY KEY ("table", date))'
)
INDEXES = (
    "CREATE INDEX jobs_date ON jobs (date DESC, rank, number DESC)",
    "CREATE INDEX jobs_source ON jobs (experiment, datatype, date DESC, number DESC)",
    "CREATE INDEX events_of_parsers ON events (state, at)"
    " WHERE state IN ('init', 'leaseExpired', 'parseError')",
)
OBJECTS = "ALTER TABLE operations ADD COLUMN objects BIGINT"
DAY_BEFORE = 'CREATE INDEX partitions_day_before ON partitions ("table", day_before)'
VERSIONS: dict[str, tuple[int, tuple[str, ...]]] = {
    "1": (1, ()),
    "2": (2, (HOLDS,)),
    "2, when it was being developed: indexes only": (2, INDEXES),
    "2, when it was being developed: objects only": (2, (OBJECTS,)),
    "3": (3, (HOLDS, *INDEXES)),
    "4": (4, (HOLDS, *INDEXES, OBJECTS)),
    "5": (5, (HOLDS, *INDEXES, OBJECTS, DAY_BEFORE)),
}
PARSED = dt.datetime(2024, 3, 2, 11, tzinfo=dt.UTC)


@pytest.fixture
def engine(store_url: str) -> Iterator[Engine]:
    """Of the gardener."""
    engine = writing(open_engine(store_url))
    yield engine
    engine.dispose()


@pytest.fixture
def database(store_url: str) -> Iterator[Engine]:
    """Of anybody else who uses the database."""
    engine = create_engine(make_url(store_url.replace("postgresql:", "postgresql+psycopg:")))
    yield engine
    engine.dispose()


def make_old_store(database: Engine, version: int, changes: tuple[str, ...]) -> None:
    first = (OLD_STORES / f"version_1_{database.dialect.name}.sql").read_text()
    data = (OLD_STORES / "data.sql").read_text()
    with database.begin() as connection:
        for statement in (*first.split(";")[:-1], *changes, *data.split(";")[:-1]):
            connection.exec_driver_sql(statement)
        connection.execute(
            text("INSERT INTO gardener_version (version) VALUES (:version)"), {"version": version}
        )


def version_of(engine: Engine) -> str:
    with engine.begin() as connection:
        return str(connection.execute(select(schema.version.c.version_num)).scalar_one())


def differences(engine: Engine) -> list[object]:
    with engine.begin() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                # An older gardener's, see `migrate`.
                "include_name": lambda name, kind, _: (kind, name) != ("table", "gardener_version"),
            },
        )
        return list(compare_metadata(context, schema.metadata))


def test_the_newest_migration_is_the_version_that_the_gardener_names() -> None:
    config = Config()
    config.set_main_option("script_location", "gardener_api.store:migrations")
    assert ScriptDirectory.from_config(config).get_heads() == [schema.NEWEST]


def test_migrations_import_nothing_of_the_gardener() -> None:
    folder = Path(schema.__file__).parent / "migrations"
    texts = {path.name: path.read_text() for path in folder.rglob("*.py")}
    assert len(texts) >= 5
    assert [name for name, text in texts.items() if "import gardener" in text] == []
    assert [name for name, text in texts.items() if "from gardener" in text] == []


def test_an_empty_database_gets_the_tables(engine: Engine) -> None:
    prepare(engine)
    assert set(inspect(engine).get_table_names()) == set(schema.metadata.tables)
    assert differences(engine) == []
    assert version_of(engine) == schema.NEWEST
    prepare(engine)
    assert version_of(engine) == schema.NEWEST


@pytest.mark.parametrize("name", VERSIONS)
def test_a_store_of_each_version_comes_up_to_the_newest_with_what_it_holds(
    database: Engine, engine: Engine, open_store: OpenStore, wanted: Wanted, name: str
) -> None:
    make_old_store(database, *VERSIONS[name])
    store = open_store()
    assert version_of(engine) == schema.NEWEST
    assert differences(engine) == []
    job = store.job(1)
    assert job is not None
    assert (job.state, job.parsed, job.archives) == (JobState.POST_PROCESSING, PARSED, 3)
    [request] = store.requests(1)
    assert (request.requester, request.withdrawn_by) == ("run:a", "")
    [event] = store.events(1)
    assert (event.left, event.seconds, event.at) == ("parsing", 60.5, PARSED)
    partition = store.tables.partition("raw_ndt.ndt7", dt.date(2024, 2, 29))
    assert partition is not None
    assert (partition.version, partition.rows, partition.requester) == (3, 114, "")
    assert partition.job is None
    [operation] = store.tables.operations(job.key)
    assert (operation.bq_job_ids, operation.objects) == (("b1", "b2"), None)
    # It works on: numbers go on where they were.
    [new] = store.enqueue([wanted(day=2)], now=PARSED)
    assert new.number == 2
    assert store.stage(job.key, JobState.LOADING, run_id="t", now=PARSED) is not None
    store.partition_locks.take("raw_ndt.ndt7", job.key.date, run_id="t", now=PARSED)


def test_an_older_gardener_refuses_a_store_that_was_taken_over(
    database: Engine, open_store: OpenStore
) -> None:
    make_old_store(database, *VERSIONS["5"])
    open_store()
    with database.begin() as connection:  # as its `prepare` looked
        found = connection.execute(text("SELECT version FROM gardener_version")).scalar_one()
    assert found > 5


def test_a_failed_migration_changes_nothing(
    database: Engine, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_old_store(database, *VERSIONS["5"])

    def fail(config: Config, revision: str) -> None:
        upgrade(config, revision)
        raise RuntimeError("no")

    upgrade = command.upgrade
    monkeypatch.setattr(command, "upgrade", fail)
    with pytest.raises(RuntimeError, match="no"):
        migrate(engine)
    tables = inspect(database).get_table_names()
    assert {"jobs", "gardener_version"} <= set(tables)
    assert not {"check_results", "alembic_version"} & set(tables)
    with database.begin() as connection:
        assert connection.execute(text("SELECT version FROM gardener_version")).scalar_one() == 5
        assert connection.execute(text("SELECT count(*) FROM jobs")).scalar_one() == 1


OPEN = """
import datetime as dt, sys
from gardener_api.store.store import JobStore
print("ready", flush=True)
sys.stdin.readline()
JobStore.open(sys.argv[1], lease=dt.timedelta(hours=5), max_attempts=3).close()
"""


@pytest.mark.parametrize("old", [True, False])
def test_processes_that_start_together_migrate_once(
    database: Engine, engine: Engine, store_url: str, old: bool
) -> None:
    if old:
        make_old_store(database, *VERSIONS["1"])
    command = [sys.executable, "-c", OPEN, store_url]
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            )
            for _ in range(4)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()  # all at once
        assert [process.wait(60) for process in processes] == [0, 0, 0, 0]
    assert version_of(engine) == schema.NEWEST
    assert differences(engine) == []


def test_a_store_of_a_newer_gardener_is_refused(engine: Engine, open_store: OpenStore) -> None:
    prepare(engine)
    with engine.begin() as connection:
        connection.execute(schema.version.update().values(version_num="9999"))
    with pytest.raises(StoreError, match=r"version 9999: expected at most .* newer gardener"):
        open_store()


def test_an_old_store_of_an_unknown_version_is_refused(
    database: Engine, open_store: OpenStore
) -> None:
    make_old_store(database, 99, VERSIONS["5"][1])
    with pytest.raises(StoreError, match=r"version 99: expected at most .* newer gardener"):
        open_store()


def test_an_old_store_without_its_version_is_refused(
    database: Engine, open_store: OpenStore
) -> None:
    make_old_store(database, *VERSIONS["5"])
    with database.begin() as connection:
        connection.execute(text("DELETE FROM gardener_version"))
    with pytest.raises(StoreError, match="gardener_version has 0 rows: expected one"):
        open_store()


def test_a_store_without_its_version_is_refused(engine: Engine, open_store: OpenStore) -> None:
    prepare(engine)
    with engine.begin() as connection:
        connection.execute(schema.version.delete())
    with pytest.raises(StoreError, match="alembic_version is damaged: expected one row"):
        open_store()


def _as_ours(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
        connection.execute(text(f"SET LOCAL search_path TO {SCHEMA}"))


def test_somebody_elses_tables_are_refused(database: Engine, open_store: OpenStore) -> None:
    with database.begin() as connection:
        _as_ours(connection)
        connection.execute(text("CREATE TABLE jobs (number INTEGER)"))
    with pytest.raises(StoreError, match="not of a gardener: jobs"):
        open_store()


def test_a_database_that_somebody_else_migrates_is_refused(
    database: Engine, open_store: OpenStore
) -> None:
    with database.begin() as connection:
        _as_ours(connection)
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('29b539ebc72a')"))
        connection.execute(text("CREATE TABLE jobs (id INTEGER, job_origin_id VARCHAR)"))
    with pytest.raises(StoreError, match="a table alembic_version, but not of a gardener"):
        open_store()


def test_d32_only_the_stores_own_tables_leave_public(
    postgresql_url: str, wanted: Wanted, now: dt.datetime
) -> None:
    with empty_database(postgresql_url) as url:
        database = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
        make_old_store(database, *VERSIONS["5"])
        with database.begin() as connection:
            connection.execute(text("CREATE TABLE runs (id INTEGER)"))
            connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
            connection.execute(text("INSERT INTO alembic_version VALUES ('29b539ebc72a')"))
        JobStore.open(url, lease=dt.timedelta(hours=5), max_attempts=3).close()
        inspector = inspect(database)
        names = {"runs", "alembic_version", "gardener_version"}
        assert set(inspector.get_table_names()) == names
        assert set(inspector.get_table_names(schema=SCHEMA)) == set(schema.metadata.tables)
        with database.begin() as connection:
            others = connection.execute(text("SELECT version_num FROM alembic_version"))
            assert others.scalars().all() == ["29b539ebc72a"]
        database.dispose()


def test_d32_a_table_jobs_of_dagster_in_public_is_left_alone(postgresql_url: str) -> None:
    with empty_database(postgresql_url) as url:
        database = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
        with database.begin() as connection:
            connection.execute(text("CREATE TABLE jobs (id INTEGER, job_origin_id VARCHAR)"))
        JobStore.open(url, lease=dt.timedelta(hours=5), max_attempts=3).close()
        columns = {column["name"] for column in inspect(database).get_columns("jobs")}
        assert columns == {"id", "job_origin_id"}
        database.dispose()


def test_d32_a_role_that_may_not_create_a_schema_uses_one_that_is_there(
    postgresql_url: str,
) -> None:
    with empty_database(postgresql_url) as url:
        database = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
        with database.begin() as connection:
            connection.execute(text("CREATE ROLE limited LOGIN"))
        limited = make_url(url).set(username="limited").render_as_string(hide_password=False)
        with pytest.raises(StoreError, match="permission denied for database"):
            JobStore.open(limited, lease=dt.timedelta(hours=5), max_attempts=3)
        with database.begin() as connection:
            connection.execute(text(f"CREATE SCHEMA {SCHEMA} AUTHORIZATION limited"))
        JobStore.open(limited, lease=dt.timedelta(hours=5), max_attempts=3).close()
        with database.begin() as connection:
            connection.execute(text(f"DROP SCHEMA {SCHEMA} CASCADE"))
            connection.execute(text("DROP ROLE limited"))
        database.dispose()
