"""Which days the daily schedule asks for: a pure plan over what was asked for.

Dagster makes up for one missed tick, not for all: so the plan does not follow from the tick alone.
It looks which of the last days nobody has asked for since they were due, and so finds days that
were missed because Dagster was down, archives could not be listed, or a run was lost.
"""

import datetime as dt
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from gardener_api.config import GardenerConfig, Source
from gardener_api.jobs.job import JobKey
from gardener_dagster.planning.due_tables import job_key

DUE = dt.time(10, 30, tzinfo=dt.UTC)
"""When the archives of the day before are there, as a rule."""

ONE_DAY = dt.timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class DailyRun:
    """One run of ``parse``: consecutive dates of the same sources."""

    first: dt.date
    last: dt.date
    sources: tuple[Source, ...]


def due_at(date: dt.date) -> dt.datetime:
    """When a date is to be asked for."""
    return dt.datetime.combine(date + ONE_DAY, DUE)


def newest_due(now: dt.datetime) -> dt.date:
    """The last date that is due."""
    yesterday = now.astimezone(dt.UTC).date() - ONE_DAY
    return yesterday if due_at(yesterday) <= now else yesterday - ONE_DAY


def recent_dates(config: GardenerConfig, days: int, *, now: dt.datetime) -> list[dt.date]:
    """The last dates that are due, at most so many, oldest first; none that is no partition.

    Args:
        config: Its ``start_date`` is the first partition; it may be moved.
        days: How many; any number.
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
    """The runs to ask for, the earliest dates first.

    Args:
        config: How many days are caught up, and of which sources.
        now: The time.
        asked: When a date was last asked for, by anybody. A request that was made after the date
            was due is enough, whoever made it, also if a person took it back; one that anything but
            a person took back is not in here.
        first_daily: A source's first daily date, by its name. It has nothing to catch up before it;
            one that never had any starts with the newest day.
        on_their_way: Sources and dates of daily runs that have not ended.
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
