"""Archives that came after their date was parsed: found, and the date asked for again.

What a parse saw is known by its time: a parser lists the archives when it is handed the job. So an
archive is late if it was made after that; a count of names would miss one that was replaced, and
the count that was listed when the job was asked for is older than what the parser saw.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import dagster as dg

from gardener_api.archive import ArchiveError, ArchiveListing, list_archives
from gardener_api.config import GardenerConfig, Source
from gardener_api.jobs import OPEN, Job, JobKey, Priority
from gardener_api.store import JobStore
from gardener_dagster.daily import ONE_DAY, newest_due
from gardener_dagster.graph import parsed_key
from gardener_dagster.planning import job_key
from gardener_dagster.resources import GCSResource
from gardener_dagster.runs import parse_request
from gardener_dagster.ticks import seconds_between

LISTINGS_AT_ONCE = 8
NAMED = 3

Seen = Mapping[str, str]
"""By job key, the fingerprint of the late archives at the last look."""


@dataclass(frozen=True, kw_only=True)
class Late:
    """A date with late archives."""

    key: JobKey
    names: tuple[str, ...]
    fingerprint: str

    @property
    def run_key(self) -> str:
        """Names the archives, so that nothing is asked for twice for the same ones."""
        return f"late/{self.key}/{self.fingerprint}"

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
        if (job := jobs.get(key)) and (job.state not in OPEN or job.used)
    }


def recent_keys(config: GardenerConfig, *, now: dt.datetime) -> list[JobKey]:
    """The jobs of the dates that late archives are expected for."""
    newest = newest_due(now)
    return [
        job_key(source, newest - n * ONE_DAY)
        for n in range(config.late_archives.days)
        for source in config.sources
        if newest - n * ONE_DAY >= config.start_date
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


def stable(late: Iterable[Late], seen: Seen) -> list[Late]:
    """Those to which nothing was added since the look before."""
    return [item for item in late if seen.get(str(item.key)) == item.fingerprint]


def late_archives_sensor(config: GardenerConfig) -> dg.SensorDefinition:
    """The sensor ``late_archives``."""
    interval = seconds_between(config.late_archives.interval)

    @dg.sensor(
        name="late_archives",
        target=dg.AssetSelection.assets(*map(parsed_key, config.sources)),
        minimum_interval_seconds=interval,
        default_status=(
            dg.DefaultSensorStatus.RUNNING
            if config.late_archives.days
            else dg.DefaultSensorStatus.STOPPED
        ),
        description=(
            f"Parses a date of the last {config.late_archives.days} again if archives came after"
            " its parse, once two looks found the same ones."
        ),
    )
    def late_archives(
        context: dg.SensorEvaluationContext,
        job_store: dg.ResourceParam[JobStore],
        gcs: GCSResource,
    ) -> dg.SensorResult:
        now = dt.datetime.now(dt.UTC)
        seen: dict[str, str] = json.loads(context.cursor) if context.cursor else {}
        jobs = job_store.days.latest(recent_keys(config, now=now))
        seen_until = looked_at(config, jobs, now=now)
        listings, errors = list_all(gcs, config, list(seen_until))
        if errors and not listings:
            raise errors[0]
        for error in errors:  # the next look is for these; the others need not wait for it
            context.log.error(str(error))
        late = find_late(seen_until, listings)
        for item in late:
            context.log.info(str(item))
        ask = stable(late, seen)
        sources = {source.name: source for source in config.sources}
        return dg.SensorResult(
            run_requests=[
                parse_request(
                    [sources[item.key.source]],
                    item.key.date,
                    item.key.date,
                    run_key=item.run_key,
                    priority=Priority.BACKFILL,
                    tags={},
                )
                for item in ask
            ],
            skip_reason=None if ask else f"{len(late)} dates with late archives, none to ask for",
            cursor=json.dumps({str(item.key): item.fingerprint for item in late}),
        )

    return late_archives


def list_all(
    gcs: GCSResource, config: GardenerConfig, keys: Sequence[JobKey]
) -> tuple[dict[JobKey, ArchiveListing], list[ArchiveError]]:
    """The archives of each key, and why those that are missing could not be listed."""
    if not keys:
        return {}, []  # and no client, which takes seconds to import
    client = gcs.client
    sources: dict[str, Source] = {source.name: source for source in config.sources}

    def look(key: JobKey) -> ArchiveListing | ArchiveError:
        try:
            return list_archives(client, key.bucket, key.prefix, sources[key.source].filter)
        except ArchiveError as error:  # reported with the others
            return error

    listings: dict[JobKey, ArchiveListing] = {}
    errors: list[ArchiveError] = []
    with ThreadPoolExecutor(LISTINGS_AT_ONCE, thread_name_prefix="list") as pool:
        for key, result in zip(keys, pool.map(look, keys), strict=True):
            if isinstance(result, ArchiveError):
                errors.append(result)
            else:
                listings[key] = result
    return listings, errors
