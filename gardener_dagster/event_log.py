"""Dagster's storage in SQLite, with connections that stay open. What is stored is Dagster's own.

Dagster opens a database anew for each event and closes it after. The last one that closes a
database writes its log back and deletes it; so most of what a run did, in CPU and in waiting for
the disk, was that: a process for 16 sources' tables of one date took 10 CPU-seconds and 36 on the
clock where it now takes 5.5, and 7 to 16 (once before, twice after, on a machine that was shared).

Dagster also reads all its migrations whenever it opens a database, to learn whether that is new,
and again to make one, which each run has. Here the database is asked, and made as a copy of the
first that was made. It was half of what a code server did, and a fifth of what a daemon did.
The files are the same ones, so an instance may change to this storage and back.
"""

import datetime as dt
import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dagster as dg
from alembic.migration import MigrationContext
from dagster import AssetCheckKey
from dagster._core.storage.asset_check_state import AssetCheckState
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.schedules import SqliteScheduleStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS, create_db_conn_string
from dagster._core.storage.sqlite_storage import (
    DagsterSqliteStorage,
    _event_logs_directory,
    _runs_directory,
    _schedule_directory,
)
from dagster._serdes import ConfigurableClassData
from sqlalchemy import Connection, create_engine
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool, StaticPool

from gardener_dagster.check_states import CheckStates
from gardener_dagster.kept_states import forget

OPEN_AT_ONCE = 8
"""Databases: a run has its own and the one for all; a webserver looks at many, few at a time."""


class OpenEventLog(SqliteEventLogStorage):
    """The event log; each process keeps the databases open that it used last."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engines: OrderedDict[str, Engine] = OrderedDict()
        self._tables: set[str] = set()
        self._columns: set[str] = set()
        self._empty = b""  # a run's database as it is made
        self._checks = CheckStates(self)
        super().__init__(base_dir, inst_data)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock:
            engine = self._engine(shard)
            with engine.begin() as connection:
                yield connection
            if shard != INDEX_SHARD_NAME:
                # Who watches a run's log looks at this file, which is written to much later now.
                os.utime(self.path_for_shard(shard))

    def _engine(self, shard: str) -> Engine:
        engine = self._engines.get(shard)
        if engine is None:
            while len(self._engines) >= OPEN_AT_ONCE:
                self._engines.popitem(last=False)[1].dispose()
            is_new = shard != INDEX_SHARD_NAME and not Path(self.path_for_shard(shard)).exists()
            if is_new and self._empty:
                _place(self._empty, Path(self.path_for_shard(shard)))
            engine = create_engine(
                self.conn_string_for_shard(shard),
                # One connection, for whichever thread has the lock.
                poolclass=StaticPool,
                connect_args={
                    "timeout": SQLITE_BUSY_TIMEOUT_SECONDS,
                    "check_same_thread": False,
                },
            )
            self._initdb(engine)
            if is_new and not self._empty:
                self._empty = _content(engine)
            self._engines[shard] = engine
        self._engines.move_to_end(shard)
        return engine

    def _initdb(self, engine: Engine, for_index_shard: bool = False) -> None:
        if not _is_stamped(engine):
            super()._initdb(engine, for_index_shard)

    def has_table(self, table_name: str) -> bool:
        """Whether there is a table; asked for each check's event, and no table ever goes."""
        if table_name not in self._tables and super().has_table(table_name):
            self._tables.add(table_name)
        return table_name in self._tables

    def _has_asset_key_col_on_connection(self, conn: Connection, column_name: str) -> bool:
        """Whether assets have a column; asked for each asset's event, and no column ever goes."""
        if column_name not in self._columns and super()._has_asset_key_col_on_connection(
            conn, column_name
        ):
            self._columns.add(column_name)
        return column_name in self._columns

    def get_asset_check_state(
        self, keys: Sequence[tuple[AssetCheckKey, dg.PartitionsDefinition[str] | None]]
    ) -> Mapping[AssetCheckKey, AssetCheckState]:
        """Of each check, in which partitions it passed, failed, or goes on."""
        return self._checks.of(keys, self._instance, now=dt.datetime.now(dt.UTC))

    def wipe_asset(self, asset_key: dg.AssetKey) -> None:
        """Deletes what is known of an asset, of its checks too."""
        super().wipe_asset(asset_key)
        forget(self._instance)

    def delete_events(self, run_id: str) -> None:
        """Deletes what a run did; what it made may be older then, or not there."""
        super().delete_events(run_id)
        forget(self._instance)

    def wipe(self) -> None:
        """Deletes everything; of what is deleted nothing stays open."""
        self._close()
        super().wipe()
        forget(self._instance)

    def dispose(self) -> None:
        """Closes all databases."""
        super().dispose()
        self._close()

    def _close(self) -> None:
        with self._db_lock:
            while self._engines:
                self._engines.popitem()[1].dispose()


class GardenerStorage(DagsterSqliteStorage):
    """Dagster's own SQLite storage, but for the event log, and how databases are opened."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        # Not Dagster's: it opens all three in its own way.
        super(DagsterSqliteStorage, self).__init__()  # type: ignore[no-untyped-call]
        self.base_dir = base_dir
        self._inst_data = inst_data
        self._event_log_storage = OpenEventLog(_event_logs_directory(base_dir))
        runs, schedules = _runs_directory(base_dir), _schedule_directory(base_dir)
        self._run_storage = (
            SqliteRunStorage(create_db_conn_string(runs, "runs"))
            if _is_made(runs, "runs")
            else SqliteRunStorage.from_local(runs)
        )
        self._schedule_storage = (
            SqliteScheduleStorage(create_db_conn_string(schedules, "schedules"))
            if _is_made(schedules, "schedules")
            else SqliteScheduleStorage.from_local(schedules)
        )

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "GardenerStorage":
        """What ``dagster.yaml`` says."""
        return cls.from_local(inst_data=inst_data, **config_value)


def _content(engine: Engine) -> bytes:
    with engine.connect() as connection:
        database: Any = connection.connection.dbapi_connection
        content: bytes = database.serialize()
    return content


def _place(content: bytes, path: Path) -> None:
    """Makes a file with that content, whole or not at all; one that another process made stays."""
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".new") as file:
        file.write(content)
        file.flush()
        with suppress(FileExistsError):
            os.link(file.name, path)


def _is_made(folder: str, name: str) -> bool:
    if not Path(folder, f"{name}.db").exists():
        return False
    engine = create_engine(create_db_conn_string(folder, name), poolclass=NullPool)
    return _is_stamped(engine)


def _is_stamped(engine: Engine) -> bool:
    """Whether it says which migration it is at, as Dagster has each say once it is whole."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision() is not None
