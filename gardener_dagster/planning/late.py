"""Plan which dates are parsed again because archives came after their parse.

What a parse saw is known by its time: a parser lists the archives when it is handed the job.
So an archive is late if it was made after that; a count of names would miss one that was replaced,
and the count that was listed when the job was asked for is older than what the parser saw.
"""

import datetime as dt
import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from gardener_api.archive import ArchiveListing
from gardener_api.config import GardenerConfig
from gardener_api.jobs.job import OPEN, Job, JobKey
from gardener_dagster.planning.daily import recent_dates
from gardener_dagster.planning.due_tables import job_key

NAMED = 3
TRIES = 3
"""Runs for a date with late archives, where each was lost before it could ask for its job."""


class Looks(BaseModel):
    """What the sensor remembers between two looks: its cursor.

    Attributes:
        seen: By job key, the fingerprint of the late archives that the last look found.
        asked: By the name of a date and its late archives, how many runs were asked for.
    """

    model_config = ConfigDict(frozen=True)

    seen: dict[str, str] = {}
    asked: dict[str, int] = {}


@dataclass(frozen=True, kw_only=True)
class Late:
    """A date with late archives."""

    key: JobKey
    names: tuple[str, ...]
    fingerprint: str

    @property
    def name(self) -> str:
        """Names the date and its late archives: the tag of the runs that are asked for."""
        return f"{self.key}/{self.fingerprint}"

    def __str__(self) -> str:
        more = f" and {len(self.names) - NAMED} more" if len(self.names) > NAMED else ""
        return f"{self.key}: came after its parse: {', '.join(self.names[:NAMED])}{more}"


def looked_at(
    config: GardenerConfig, jobs: Mapping[JobKey, Job], *, now: dt.datetime
) -> dict[JobKey, dt.datetime]:
    """The dates to look at, with the time before which an archive was seen by the last parse.

    Left out: what was never asked for (the schedule's business), and a job whose rows are not in
    raw yet. Asking would join that job; its late archives are found when they are.
    """
    return {
        key: job.leased or job.created
        for key in recent_keys(config, now=now)
        if (job := jobs.get(key)) and (job.state not in OPEN or job.is_in_raw)
    }


def recent_keys(config: GardenerConfig, *, now: dt.datetime) -> list[JobKey]:
    """The jobs of the dates that late archives are expected for."""
    return [
        job_key(source, date)
        for date in reversed(recent_dates(config, config.late_archives.days, now=now))
        for source in config.sources
    ]


def find_late(
    seen_until: Mapping[JobKey, dt.datetime], listings: Mapping[JobKey, ArchiveListing]
) -> list[Late]:
    """The dates that have archives which their parse did not see."""
    found = []
    for key, listing in listings.items():
        late = listing.since(seen_until[key])
        if late:
            lines = (f"{name} {created.timestamp()}\n" for name, created in sorted(late.items()))
            digest = hashlib.sha256("".join(lines).encode()).hexdigest()[:16]
            found.append(Late(key=key, names=tuple(sorted(late)), fingerprint=digest))
    return found


def late_due(late: Iterable[Late], before: Looks, *, in_progress: Collection[str]) -> list[Late]:
    """The dates to ask for: nothing was added to them since the look before, and no run is on it.

    A date that was asked for is late until its job is made. If its run ended before that, it is
    asked for again, ``TRIES`` times in all.

    Args:
        late: What this look found.
        before: What is remembered of the looks before.
        in_progress: The names of what runs that have not ended are to parse.
    """
    return [
        item
        for item in late
        if before.seen.get(str(item.key)) == item.fingerprint
        and item.name not in in_progress
        and before.asked.get(item.name, 0) < TRIES
    ]


def after_look(late: Iterable[Late], before: Looks, asked: Iterable[Late]) -> Looks:
    """What to remember of a look; nothing of dates that are not late any more."""
    late = list(late)
    counts = Counter({item.name: before.asked.get(item.name, 0) for item in late})
    counts.update(item.name for item in asked)
    return Looks(
        seen={str(item.key): item.fingerprint for item in late},
        asked={name: count for name, count in counts.items() if count},
    )
