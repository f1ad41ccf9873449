"""Partition locks: at most one Dagster run writes a partition at a time.

A run releases a lock when it is done with the partition; a run that crashed cannot. Only Dagster
knows whether a run has ended, so the caller names the run whose lock may be taken over.
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
    """The lock of a partition, with the run that holds it."""

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
        """Lock a partition if it is free or its lock may be taken over.

        Args:
            table: ``<dataset>.<table>``.
            date: The partition.
            run_id: The Dagster run; it keeps a lock that it already holds.
            ended: A run that has ended, whose lock may be taken over.
            now: The time.

        Returns:
            The current lock: of this run, or of the run that holds the partition.
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
        """Return the ID of the Dagster run that holds the lock; ``None`` if it is free."""
        query = select(_l.run_id).where(_l.table == table, _l.date == date)
        with self._engine.begin() as connection:
            run_id: str | None = connection.execute(query).scalar_one_or_none()
        return run_id

    def release(self, table: str, date: dt.date, *, run_id: str) -> None:
        """Release a lock; do nothing if another run holds it."""
        mine = delete(schema.partition_locks).where(
            _l.table == table, _l.date == date, _l.run_id == run_id
        )
        with self._writer.begin() as connection:
            connection.execute(mine)
