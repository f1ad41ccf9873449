"""Freshness: whether each source's newest complete date is as new as it should be by now.

The asset ``freshness`` has no data, but one check per source: its *Checks* page in Dagster shows
the newest complete date of each source and why the next one is late. A schedule of its own runs
the checks. (Dagster's freshness policies use the last materialization of any date, so a backfill of
old dates would hide that yesterday is missing; they supersede its checks of the newest partition.
Checks on the tables would run with the tables of every date.)
"""

import datetime as dt

import dagster as dg

from gardener_api.config import GardenerConfig, Source
from gardener_api.jobs.job import Job, JobState
from gardener_api.store.store import JobStore
from gardener_dagster.assets.keys import joined_key, raw_key
from gardener_dagster.planning.due_tables import job_key

KEY = dg.AssetKey("freshness")
DUE = dt.time(20, tzinfo=dt.UTC)
"""When yesterday should be complete: it is requested at 10:30, and a lease lasts five hours."""
ONE_DAY = dt.timedelta(days=1)
_QUEUED = "see whether the sidecar (`gardener api`) and the parsers run"


def build_freshness(config: GardenerConfig) -> dg.Definitions:
    """Build the asset, its checks, and the job and schedule that run them."""
    checks = [_check(source, config.start_date) for source in config.sources]
    job = dg.define_asset_job(
        "freshness",
        selection=dg.AssetSelection.checks(*checks),
        description="Looks whether each source's newest complete date is as new as it should be.",
    )
    return dg.Definitions(
        assets=[
            dg.AssetSpec(
                KEY,
                deps=[joined_key(source) or raw_key(source) for source in config.sources],
                description="No data: its checks say how new each source's tables are.",
                group_name=KEY.path[-1],
                kinds={"check"},
            )
        ],
        asset_checks=checks,
        schedules=[
            dg.ScheduleDefinition(
                name="freshness",
                job=job,
                cron_schedule="0 2,8,14,20 * * *",
                execution_timezone="UTC",
                default_status=dg.DefaultScheduleStatus.RUNNING,
                description="Looks at the freshness of every source, first when it is due.",
            )
        ],
    )


def due_date(now: dt.datetime) -> dt.date:
    """Return the newest date that should be complete."""
    today = now.astimezone(dt.UTC)
    return today.date() - ONE_DAY * (1 if today.timetz() >= DUE else 2)


def describe(due: dt.date, newest: dt.date | None, job: Job | None) -> str:
    """Return the description of a source's check result.

    Args:
        due: The newest date that should be complete.
        newest: The newest complete date; ``None`` if there is none.
        job: The job of the due date, if there is one.
    """
    known = f"the newest complete date is {newest}" if newest else "no date was ever complete"
    if newest and newest >= due:
        return known
    if job is None:
        held_up = "nobody asked for it: look at the schedule daily"
    else:
        why = job.error or job.detail or (_QUEUED if job.state is JobState.QUEUED else "")
        held_up = f"its job is {job.state}" + (f": {why}" if why else "")
    return f"{due} is not complete, {held_up}; {known}"


def _check(source: Source, start: dt.date) -> dg.AssetChecksDefinition:
    table = source.joined_table or source.raw_table

    @dg.asset_check(
        asset=KEY,
        name=source.name.replace("/", "_"),
        description=f"`{table}` has yesterday's date, from {DUE:%H:%M} UTC on.",
    )
    def fresh(job_store: dg.ResourceParam[JobStore]) -> dg.AssetCheckResult:
        due = due_date(dt.datetime.now(dt.UTC))
        newest = job_store.tables.newest_date(table)
        job = job_store.latest(job_key(source, due))
        return dg.AssetCheckResult(
            passed=due < start or (newest is not None and newest >= due),
            description=describe(due, newest, job),
            metadata={"newest complete date": str(newest or "none"), "date due": str(due)}
            | ({"days behind": max(0, (due - newest).days)} if newest else {}),
        )

    return fresh
