"""The storage with open connections: what it keeps is what Dagster's own keeps."""

import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from alembic.script import ScriptDirectory
from dagster import DagsterEventType
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster_instance import instance_in
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

from gardener_dagster.event_log import OPEN_AT_ONCE, OpenEventLog

DATE = "2024-03-01"


@dg.asset(partitions_def=dg.DailyPartitionsDefinition(DATE))
def table() -> None:
    """An asset."""


with warnings.catch_warnings():
    warnings.simplefilter("ignore", dg.PreviewWarning)  # checks with partitions, as ours

    @dg.asset_check(asset=table, partitions_def=table.partitions_def)
    def whole() -> dg.AssetCheckResult:
        """A check."""
        return dg.AssetCheckResult(passed=True)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with instance_in(tmp_path) as instance:
        yield instance


def run_it(instance: dg.DagsterInstance) -> str:
    definitions = dg.Definitions(assets=[table], asset_checks=[whole])
    job = definitions.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(instance=instance, partition_key=DATE).run_id


def log(instance: dg.DagsterInstance) -> OpenEventLog:
    found = instance.event_log_storage
    assert isinstance(found, OpenEventLog)
    return found


def test_dagsters_own_storage_reads_what_was_written_and_writes_on(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    run_id = run_it(instance)
    with dg.DagsterInstance.from_ref(instance.get_ref()) as other:
        own = DagsterSqliteStorage.from_local(str(tmp_path)).event_log_storage
        assert type(own) is SqliteEventLogStorage
        own.register_instance(other)
        events = own.get_logs_for_run(run_id)
        assert events[-1].dagster_event_type is DagsterEventType.PIPELINE_SUCCESS
        assert len(events) == len(instance.all_logs(run_id))
        assert own.get_materialized_partitions(table.key) == {DATE}
        own.wipe_asset(table.key)
    assert instance.get_materialized_partitions(table.key) == set()


def test_checks_and_materializations_are_found(instance: dg.DagsterInstance) -> None:
    run_id = run_it(instance)
    assert instance.get_materialized_partitions(table.key) == {DATE}
    [check] = instance.event_log_storage.get_asset_check_execution_history(
        next(iter(whole.check_keys)), limit=5
    )
    assert check.run_id == run_id


@contextmanager
def both(storage: OpenEventLog, *statements: str) -> Iterator[None]:
    with storage.index_connection() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
        yield


def test_a_rolled_back_transaction_leaves_the_connection_usable(
    instance: dg.DagsterInstance,
) -> None:
    storage = log(instance)
    wrong = "INSERT INTO asset_keys (asset_key, no_such_column) VALUES ('[\"lost\"]', 1)"
    right = "INSERT INTO asset_keys (asset_key) VALUES ('[\"lost\"]')"
    with pytest.raises(OperationalError, match="no_such_column"), both(storage, right, wrong):
        pass
    assert instance.all_asset_keys() == []
    run_it(instance)
    assert instance.all_asset_keys() == [table.key]


def open_files() -> set[str]:
    return {fd.readlink().name for fd in Path("/proc/self/fd").iterdir() if fd.exists()}


def test_each_runs_database_is_made_as_dagster_makes_it(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    made = {}
    for run in [run_it(instance) for _ in range(3)]:
        with log(instance).run_connection(run) as connection:
            made[run] = [
                connection.exec_driver_sql(question).all()
                for question in (
                    "SELECT name, sql FROM sqlite_master ORDER BY name",
                    "SELECT * FROM alembic_version",
                    "PRAGMA journal_mode",
                    "PRAGMA integrity_check",
                )
            ]
        assert instance.all_logs(run)[-1].dagster_event_type is DagsterEventType.PIPELINE_SUCCESS
    first, *others = made.values()
    assert others == [first, first]
    assert first[2:] == [[("wal",)], [("ok",)]]
    assert not list(tmp_path.rglob("*.new"))


def test_migrations_are_read_once(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_it(instance)
    monkeypatch.setattr(ScriptDirectory, "from_config", lambda _: pytest.fail("read again"))
    run_id = run_it(instance)
    with dg.DagsterInstance.from_ref(instance.get_ref()) as other:
        assert other.all_logs(run_id)


def test_what_columns_assets_have_is_asked_once(instance: dg.DagsterInstance) -> None:
    asked = []

    def listening(_: object, __: object, statement: str, *___: object) -> None:
        if "table_" in statement and "asset_keys" in statement:
            asked.append(statement)

    run_it(instance)
    event.listen(Engine, "before_cursor_execute", listening)
    run_it(instance)
    event.remove(Engine, "before_cursor_execute", listening)
    assert asked == []


def test_no_more_databases_stay_open_than_are_used(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    runs = [dg.DagsterRun(job_name="many").run_id for _ in range(OPEN_AT_ONCE + 2)]
    for run in runs:
        instance.report_engine_event("one", job_name="many", run_id=run)
    assert all(instance.all_logs(run) for run in runs)
    opened = open_files()
    assert len({f"{run}.db" for run in runs} & opened) <= OPEN_AT_ONCE
    instance.dispose()
    opened = open_files()
    assert not {f"{run}.db" for run in runs} & opened


def test_whoever_watches_a_run_is_told_of_each_event(instance: dg.DagsterInstance) -> None:
    run_id = dg.DagsterRun(job_name="watched").run_id
    told = threading.Event()
    with dg.DagsterInstance.from_ref(instance.get_ref()) as watcher:
        instance.report_engine_event("first", job_name="watched", run_id=run_id)
        watcher.watch_event_logs(run_id, None, lambda event, _: _tell(told, event, "second"))
        instance.report_engine_event("second", job_name="watched", run_id=run_id)
        assert told.wait(10)


def _tell(told: threading.Event, event: dg.EventLogEntry, message: str) -> None:
    if event.message == message:
        told.set()


def test_threads_share_it(instance: dg.DagsterInstance) -> None:
    run_id = dg.DagsterRun(job_name="shared").run_id

    def write(number: int) -> None:
        for _ in range(10):
            instance.report_engine_event(str(number), job_name="shared", run_id=run_id)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert len(instance.all_logs(run_id)) == 40


def test_what_is_wiped_is_gone(instance: dg.DagsterInstance) -> None:
    run_id = run_it(instance)
    log(instance).wipe()
    assert instance.all_logs(run_id) == []
    assert instance.get_materialized_partitions(table.key) == set()


def test_the_projects_instance_has_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root = Path(__file__).parent.parent.parent
    (tmp_path / "dagster.yaml").write_bytes((root / "dagster.yaml").read_bytes())
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.get() as instance:
        assert isinstance(instance.event_log_storage, OpenEventLog)
