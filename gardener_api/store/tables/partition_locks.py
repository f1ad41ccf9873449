"""Partition locks: which Dagster run works on which partition, so that no two interleave.

A run releases a lock when it is done with the partition; one that died cannot. Whether a run has
ended is Dagster's knowledge, so the caller names the run whose lock may be taken over.
"""

import datetime as dt
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.engine import Engine

from gardener_api.store import schema
from gardener_api.store.engine import upsert, writing

_l = schema.partition_locks.c


@dataclass(frozen=True, kw_only=True, slots=True)
class Lock:
    """A run has a partition to itself."""

    table: str
    date: dt.date
    run_id: str
    since: dt.datetime


class PartitionLocks:
    """The locks, in the same database as the jobs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = writing(engine)

    def take(
        self, table: str, date: dt.date, *, run_id: str, ended: str = "", now: dt.datetime
    ) -> Lock:
        """Lock a partition, if it is free.

        Args:
            table: ``<dataset>.<table>``.
            date: The partition.
            run_id: The Dagster run that wants it; one that has it keeps it.
            ended: A run that is over: its lock may be taken over.
            now: The time.

        Returns:
            The lock there is now: of this run, or of the one that has the partition.
        """
        free = upsert(
            self._writer,
            schema.partition_locks,
            ["run_id", "since"],
            only=_l.run_id == ended,
        )
        values = {"table": table, "date": date, "run_id": run_id, "since": now}
        with self._writer.begin() as connection:
            connection.execute(free.values(values))
            query = select(schema.partition_locks).where(_l.table == table, _l.date == date)
            return Lock(**connection.execute(query).mappings().one())

    def holder(self, table: str, date: dt.date) -> str | None:
        """The ID of the Dagster run that has the lock; ``None`` where it is free."""
        query = select(_l.run_id).where(_l.table == table, _l.date == date)
        with self._engine.begin() as connection:
            run_id: str | None = connection.execute(query).scalar_one_or_none()
        return run_id

    def release(self, table: str, date: dt.date, *, run_id: str) -> None:
        """Release a lock; nothing happens where another run has it."""
        mine = delete(schema.partition_locks).where(
            _l.table == table, _l.date == date, _l.run_id == run_id
        )
        with self._writer.begin() as connection:
            connection.execute(mine)
