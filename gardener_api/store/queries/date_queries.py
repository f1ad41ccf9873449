"""Read which dates of which sources were asked for, for schedules, passes and commands.

Queries of single jobs are in ``job_queries``.
"""

import datetime as dt
from collections.abc import Collection

from sqlalchemy import and_, func, select
from sqlalchemy.engine import Engine

from gardener_api.jobs.job import BY_PERSON, Job, JobKey, JobState, Priority
from gardener_api.store import schema
from gardener_api.store.rows import chunks, is_latest, job_of, select_jobs

_c = schema.jobs.c


class DayQueries:
    """Queries by source and date."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def last_asked(self, since: dt.date) -> dict[JobKey, dt.datetime]:
        """Return the time of the last request for each requested date from ``since`` on.

        A withdrawn request of a withdrawn job counts only if a person withdrew it; else the date
        must be requested again.
        """
        r = schema.requests.c
        key = (_c.bucket, _c.experiment, _c.datatype, _c.date)
        is_lost = and_(
            _c.state == JobState.WITHDRAWN,
            r.withdrawn.is_not(None),
            ~r.withdrawn_by.startswith(BY_PERSON),
        )
        query = select(*key, func.max(r.asked)).join(schema.requests, r.job == _c.number)
        query = query.where(_c.date >= since, ~is_lost).group_by(*key)
        with self._engine.begin() as connection:
            return {
                JobKey(bucket=bucket, experiment=experiment, datatype=datatype, date=date): asked
                for bucket, experiment, datatype, date, asked in connection.execute(query)
            }

    def first_daily(self) -> dict[str, dt.date]:
        """Return the first date that has a daily job, by the name of the source."""
        query = select(_c.experiment, _c.datatype, func.min(_c.date)).where(_c.daily)
        query = query.group_by(_c.experiment, _c.datatype)
        with self._engine.begin() as connection:
            return {f"{e}/{d}": first for e, d, first in connection.execute(query)}

    def latest(self, keys: Collection[JobKey]) -> dict[JobKey, Job]:
        """Return the newest job of each of these keys that has one."""
        found = {}
        with self._engine.begin() as connection:
            for chunk in chunks(sorted({str(key) for key in keys})):
                for row in connection.execute(select_jobs().where(is_latest(chunk))):
                    job = job_of(row)
                    found[job.key] = job
        return found

    def asked_by(self, requesters: Collection[str]) -> int:
        """Return the number of requests of these requesters."""
        r = schema.requests.c
        with self._engine.begin() as connection:
            query = select(func.count()).where(r.requester.in_(requesters))
            return int(connection.execute(query).scalar_one())

    def waiting_for_tables(self, priority: Priority) -> int:
        """Count the parsed jobs of a priority whose tables are not started."""
        query = select(func.count()).where(
            _c.state == JobState.POST_PROCESSING, _c.priority == priority
        )
        with self._engine.begin() as connection:
            return int(connection.execute(query).scalar_one())

    def rows(self, table: str, first: dt.date, last: dt.date) -> dict[dt.date, int]:
        """Return the number of rows of each written partition of ``<dataset>.<table>``."""
        p = schema.partitions.c
        query = select(p.date, p.rows).where(
            p.table == table, p.date.between(first, last), p.version > 0
        )
        with self._engine.begin() as connection:
            return {row.date: row.rows for row in connection.execute(query)}
