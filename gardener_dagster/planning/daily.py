"""Plan which days the daily schedule requests. Pure.

Dagster makes up for one missed tick only, so the plan does not rely on ticks: it selects the recent
days that nobody has requested since they became due. This includes days that were missed because
Dagster was down, archives could not be listed, or a run was lost.
"""

import datetime as dt
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from gardener_api.config import GardenerConfig, Source
from gardener_api.jobs.job import JobKey
from gardener_dagster.planning.due_tables import job_key

DUE = dt.time(10, 30, tzinfo=dt.UTC)
"""Time of day at which the archives of the day before are usually in the bucket."""

ONE_DAY = dt.timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class DailyRun:
    """One run of ``parse``: consecutive dates of the same sources."""

    first: dt.date
    last: dt.date
    sources: tuple[Source, ...]


def due_at(date: dt.date) -> dt.datetime:
    """Return the time at which a date becomes due."""
    return dt.datetime.combine(date + ONE_DAY, DUE)


def newest_due(now: dt.datetime) -> dt.date:
    """Return the last date that is due."""
    yesterday = now.astimezone(dt.UTC).date() - ONE_DAY
    return yesterday if due_at(yesterday) <= now else yesterday - ONE_DAY


def recent_dates(config: GardenerConfig, days: int, *, now: dt.datetime) -> list[dt.date]:
    """Return the last ``days`` due dates that have a partition, oldest first.

    Args:
        config: The configuration; ``start_date`` is the first partition.
        days: Maximum number of dates.
        now: The time.
    """
    newest = newest_due(now)
    count = max(0, min(days, (newest - config.start_date).days + 1))
    return [newest - back * ONE_DAY for back in reversed(range(count))]


def days_due(
    config: GardenerConfig,
    *,
    now: dt.datetime,
    asked: Mapping[JobKey, dt.datetime],
    first_daily: Mapping[str, dt.date],
    on_their_way: AbstractSet[tuple[str, dt.date]],
) -> list[DailyRun]:
    """Return the runs to request, the earliest dates first.

    Args:
        config: The configuration: its sources, and ``daily.catch_up_days``.
        now: The time.
        asked: Time of the last request for each job. A date is done if anybody requested it after
            it became due, even if a person withdrew the request. Requests withdrawn by anything
            else are not included.
        first_daily: First daily date of each source, by name; earlier dates are not caught up. A
            source without an entry starts with the newest due date.
        on_their_way: Source names and dates of unfinished daily runs.
    """
    runs: list[DailyRun] = []
    for date in recent_dates(config, config.daily.catch_up_days, now=now):
        sources = tuple(
            source
            for source in config.sources
            if date >= first_daily.get(source.name, newest_due(now))
            and (source.name, date) not in on_their_way
            and not _was_asked(asked.get(job_key(source, date)), date)
        )
        if not sources:
            continue
        if runs and runs[-1].last == date - ONE_DAY and runs[-1].sources == sources:
            runs[-1] = DailyRun(first=runs[-1].first, last=date, sources=sources)
        else:
            runs.append(DailyRun(first=date, last=date, sources=sources))
    return runs


def _was_asked(asked: dt.datetime | None, date: dt.date) -> bool:
    return asked is not None and asked >= due_at(date)
