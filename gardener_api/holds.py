"""Which Dagster run works on which partition, so that no two interleave.

A hold ends with its run: nothing gives it back. Whether a run has ended is Dagster's knowledge, so
the caller says whose hold is over.
"""

import datetime as dt
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.engine import Engine

from gardener_api import schema
from gardener_api.database import upsert, writing

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
