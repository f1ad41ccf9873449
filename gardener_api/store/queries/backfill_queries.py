"""Reading the store for the status page: how far the unfinished backfills are."""

import datetime as dt
from typing import Any

from sqlalchemy import Row, case, func, select
from sqlalchemy.engine import Engine

from gardener_api.jobs.backfill_progress import RATE_WINDOW, BackfillProgress
from gardener_api.jobs.job import ENDED, OPEN, JobState
from gardener_api.store import schema

MOST = 20
"""How many backfills the page shows."""
MOST_OPEN = 20_000
"""How many unfinished jobs are read to find the backfills that they are of."""
_c, _r = schema.jobs.c, schema.requests.c


class BackfillQueries:
    """The store by backfill. A backfill of tables alone asks for no jobs, and is not in it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def unfinished(self, *, now: dt.datetime) -> list[BackfillProgress]:
        """The backfills that have unfinished jobs, the newest first."""
        unfinished = select(_c.number).where(_c.state.in_(sorted(OPEN))).limit(MOST_OPEN).subquery()
        names = (
            select(_r.requester, func.max(_r.asked).label("newest"))
            .join(unfinished, _r.job == unfinished.c.number)
            .where(_r.backfill_id.is_not(None), _r.withdrawn.is_(None))
            .group_by(_r.requester)
            .order_by(func.max(_r.asked).desc())
            .limit(MOST)
        )
        lately = case((_c.ended >= now - RATE_WINDOW, 1), else_=0)
        with self._engine.begin() as connection:
            requesters = list(connection.execute(names).scalars())
            groups: dict[str, list[Row[Any]]] = {name: [] for name in requesters}
            query = (
                select(
                    _r.requester, _c.experiment, _c.datatype, _c.state,
                    func.max(_r.backfill_id).label("backfill_id"),
                    func.count().label("jobs"),
                    func.sum(lately).label("lately"),
                    func.min(_c.date).label("first"),
                    func.max(_c.date).label("last"),
                    func.min(_r.asked).label("asked"),
                )
                .join(schema.jobs, _r.job == _c.number)
                .where(_r.requester.in_(requesters), _r.withdrawn.is_(None))
                .group_by(_r.requester, _c.experiment, _c.datatype, _c.state)
            )  # fmt: skip
            for row in connection.execute(query):
                groups[row.requester].append(row)
        return [_progress(rows) for rows in groups.values() if rows]


def _progress(rows: list[Row[Any]]) -> BackfillProgress:
    """The progress of a backfill, from the row of each of its sources and states."""

    def jobs(*states: JobState) -> int:
        return sum(row.jobs for row in rows if row.state in states)

    return BackfillProgress(
        backfill_id=rows[0].backfill_id,
        sources=sorted({f"{row.experiment}/{row.datatype}" for row in rows}),
        first=min(row.first for row in rows),
        last=max(row.last for row in rows),
        asked=min(row.asked for row in rows),
        jobs=sum(row.jobs for row in rows),
        complete=jobs(JobState.COMPLETE),
        failed=jobs(JobState.FAILED, JobState.WITHDRAWN),
        ended_lately=sum(row.lately for row in rows if row.state in ENDED),
    )
