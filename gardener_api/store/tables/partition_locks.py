"""Which Dagster run works on which partition, so that no two interleave.

A run gives a hold back when it is done with the partition; one that died cannot. Whether a run has
ended is Dagster's knowledge, so the caller says whose hold is over.
"""

import datetime as dt
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.engine import Engine

from gardener_api.store import schema
from gardener_api.store.engine import upsert, writing

_h = schema.holds.c


@dataclass(frozen=True, kw_only=True, slots=True)
class Hold:
    """A run has a partition to itself."""

    table: str
    date: dt.date
    run_id: str
    since: dt.datetime


class Holds:
    """The holds, in the same database as the jobs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = writing(engine)

    def take(
        self, table: str, date: dt.date, *, run_id: str, ended: str = "", now: dt.datetime
    ) -> Hold:
        """Take a partition, if nobody has it.

        Args:
            table: ``<dataset>.<table>``.
            date: The partition.
            run_id: The Dagster run that wants it; one that has it keeps it.
            ended: A run that is over: its hold is.
            now: The time.

        Returns:
            The hold there is now: of this run, or of the one that has the partition.
        """
        free = upsert(
            self._writer,
            schema.holds,
            ["run_id", "since"],
            only=_h.run_id == ended,
        )
        values = {"table": table, "date": date, "run_id": run_id, "since": now}
        with self._writer.begin() as connection:
            connection.execute(free.values(values))
            query = select(schema.holds).where(_h.table == table, _h.date == date)
            return Hold(**connection.execute(query).mappings().one())

    def held_by(self, table: str, date: dt.date) -> str | None:
        """The ID of the Dagster run that has a partition; ``None`` where none ever had it."""
        query = select(_h.run_id).where(_h.table == table, _h.date == date)
        with self._engine.begin() as connection:
            run_id: str | None = connection.execute(query).scalar_one_or_none()
        return run_id

    def release(self, table: str, date: dt.date, *, run_id: str) -> None:
        """Give a partition back; nothing happens where another run has it."""
        mine = delete(schema.holds).where(_h.table == table, _h.date == date, _h.run_id == run_id)
        with self._writer.begin() as connection:
            connection.execute(mine)
