"""Plan which dates are parsed again because archives came after their parse.

A parser lists the archives when it receives the job, so an archive is late if it was created after
that time. Counts would not do: they miss replaced archives, and the count in the job was taken at
the request, before the parser listed the archives.
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
"""Maximum number of runs for the same late archives of a date, if runs end without a job."""


class Looks(BaseModel):
    """The sensor's cursor.

    Attributes:
        seen: Fingerprint of the late archives that the last tick found, by job key.
        asked: Number of requested runs, by ``Late.name``.
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
        """Unique name of the date and its late archives: the tag of the requested runs."""
        return f"{self.key}/{self.fingerprint}"

    def __str__(self) -> str:
        more = f" and {len(self.names) - NAMED} more" if len(self.names) > NAMED else ""
        return f"{self.key}: came after its parse: {', '.join(self.names[:NAMED])}{more}"


def looked_at(
    config: GardenerConfig, jobs: Mapping[JobKey, Job], *, now: dt.datetime
) -> dict[JobKey, dt.datetime]:
    """Return the jobs to examine, each with the time until which its parse saw archives.

    Skips dates that were never requested (the daily schedule does that), and open jobs whose rows
    are not in raw yet: a request would attach to that job. A later tick examines them.
    """
    return {
        key: job.leased or job.created
        for key in recent_keys(config, now=now)
        if (job := jobs.get(key)) and (job.state not in OPEN or job.is_in_raw)
    }


def recent_keys(config: GardenerConfig, *, now: dt.datetime) -> list[JobKey]:
    """Return the job keys of the last ``late_archives.days`` dates, the newest first."""
    return [
        job_key(source, date)
        for date in reversed(recent_dates(config, config.late_archives.days, now=now))
        for source in config.sources
    ]


def find_late(
    seen_until: Mapping[JobKey, dt.datetime], listings: Mapping[JobKey, ArchiveListing]
) -> list[Late]:
    """Return the dates with archives that their parse did not see."""
    found = []
    for key, listing in listings.items():
        late = listing.since(seen_until[key])
        if late:
            lines = (f"{name} {created.timestamp()}\n" for name, created in sorted(late.items()))
            digest = hashlib.sha256("".join(lines).encode()).hexdigest()[:16]
            found.append(Late(key=key, names=tuple(sorted(late)), fingerprint=digest))
    return found


def late_due(late: Iterable[Late], before: Looks, *, in_progress: Collection[str]) -> list[Late]:
    """Return the dates to request: unchanged since the last tick, and without an unfinished run.

    A requested date stays late until its job is created. If its run ends before that, the date is
    requested again, at most ``TRIES`` times in total.

    Args:
        late: The late dates that this tick found.
        before: The cursor of the last tick.
        in_progress: ``Late.name`` of the dates that unfinished runs parse.
    """
    return [
        item
        for item in late
        if before.seen.get(str(item.key)) == item.fingerprint
        and item.name not in in_progress
        and before.asked.get(item.name, 0) < TRIES
    ]


def after_look(late: Iterable[Late], before: Looks, asked: Iterable[Late]) -> Looks:
    """Return the cursor after a tick, without dates that are no longer late."""
    late = list(late)
    counts = Counter({item.name: before.asked.get(item.name, 0) for item in late})
    counts.update(item.name for item in asked)
    return Looks(
        seen={str(item.key): item.fingerprint for item in late},
        asked={name: count for name, count in counts.items() if count},
    )
