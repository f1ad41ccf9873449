"""Reading the store for the status page: how far the unfinished backfills are."""

import datetime as dt
from typing import Any

from sqlalchemy import Row, and_, case, exists, func, literal, or_, select
from sqlalchemy.engine import Engine

from gardener_api.jobs.backfill_progress import RATE_WINDOW, BackfillProgress
from gardener_api.jobs.job import ENDED, OPEN, JobState
from gardener_api.store import schema

MOST = 20
"""How many backfills the page shows."""
MOST_OPEN = 20_000
"""How many unfinished jobs are read to find their backfills."""
_c, _r = schema.jobs.c, schema.requests.c
_t, _p = schema.tables_backfills.c, schema.partitions.c


class BackfillQueries:
    """Queries by backfill."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def unfinished(self, *, now: dt.datetime) -> list[BackfillProgress]:
        """Return the backfills with unfinished jobs, and tables-only ones; the newest first."""
        found = [*self._of_jobs(now), *self._of_tables(now)]
        return sorted(found, key=lambda each: each.asked, reverse=True)

    def _of_jobs(self, now: dt.datetime) -> list[BackfillProgress]:
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

    def _of_tables(self, now: dt.datetime) -> list[BackfillProgress]:
        failed = exists().where(
            _c.experiment == _t.experiment,
            _c.datatype == _t.datatype,
            _c.date == _t.date,
            _c.state == JobState.FAILED,
            _c.entered >= _t.began,
        )
        made = and_(_p.version > 0, _p.requester == literal("backfill/") + _t.backfill_id)
        lately = and_(made, _p.made >= now - RATE_WINDOW)
        query = (
            select(
                _t.backfill_id, _t.experiment, _t.datatype,
                func.count().label("dates"),
                func.sum(case((failed, 0), (made, 1), else_=0)).label("complete"),
                func.sum(case((failed, 1), else_=0)).label("failed"),
                func.sum(case((or_(failed, lately), 1), else_=0)).label("lately"),
                func.min(_t.date).label("first"),
                func.max(_t.date).label("last"),
                func.min(_t.began).label("began"),
            )
            .outerjoin(schema.partitions, and_(_p.table == _t.table, _p.date == _t.date))
            .group_by(_t.backfill_id, _t.experiment, _t.datatype)
        )  # fmt: skip
        groups: dict[str, list[Row[Any]]] = {}
        with self._engine.begin() as connection:
            for row in connection.execute(query):
                groups.setdefault(row.backfill_id, []).append(row)
        return [
            BackfillProgress(
                backfill_id=backfill_id,
                sources=sorted(f"{row.experiment}/{row.datatype}" for row in rows),
                first=min(row.first for row in rows),
                last=max(row.last for row in rows),
                asked=min(row.began for row in rows),
                jobs=sum(row.dates for row in rows),
                complete=sum(row.complete for row in rows),
                failed=sum(row.failed for row in rows),
                ended_lately=sum(row.lately for row in rows),
                tables_only=True,
            )
            for backfill_id, rows in groups.items()
        ]


def _progress(rows: list[Row[Any]]) -> BackfillProgress:
    """Build the progress of a backfill from its rows, one per source and state."""

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
