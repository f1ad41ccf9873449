"""Targets of backfills of tables alone, recorded while they run: they have no jobs."""

import datetime as dt
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sqlalchemy import delete, insert, select
from sqlalchemy.engine import Engine

from gardener_api.store import schema
from gardener_api.store.engine import writing
from gardener_api.store.rows import chunks

_t = schema.tables_backfills.c


@dataclass(frozen=True, kw_only=True, slots=True)
class TablesTarget:
    """The last table and the dates that a backfill makes of a source."""

    source: str  # "<experiment>/<datatype>"
    table: str  # "<dataset>.<table>": the last one that it makes
    dates: Collection[dt.date]


class TablesBackfills:
    """The unfinished backfills of tables alone, in the same database as the jobs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = writing(engine)

    def known(self) -> set[str]:
        """Return the IDs of the recorded backfills."""
        with self._engine.begin() as connection:
            return set(connection.execute(select(_t.backfill_id).distinct()).scalars())

    def note(
        self, backfill_id: str, targets: Iterable[TablesTarget], *, began: dt.datetime
    ) -> None:
        """Record what a backfill makes; call it once per backfill.

        Args:
            backfill_id: Its ID in Dagster.
            targets: One for each source.
            began: When it was launched.
        """
        rows = [
            {
                "backfill_id": backfill_id,
                "table": target.table,
                "date": date,
                "experiment": experiment,
                "datatype": datatype,
                "began": began,
            }
            for target in targets
            for experiment, _, datatype in [target.source.partition("/")]
            for date in sorted(target.dates)
        ]
        with self._writer.begin() as connection:
            for chunk in chunks(rows):
                connection.execute(insert(schema.tables_backfills), chunk)

    def forget(self, backfill_ids: Collection[str]) -> None:
        """Delete the records of ended backfills."""
        if backfill_ids:
            over = _t.backfill_id.in_(sorted(backfill_ids))
            with self._writer.begin() as connection:
                connection.execute(delete(schema.tables_backfills).where(over))
