"""What is wrong with the tables, and what to do about it: a snapshot in, problems out. Pure."""

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Iterator

from gardener_api.config import GardenerConfig
from gardener_api.formatting import count_jobs, human_duration, spans
from gardener_api.jobs.job import TABLE_STATES, JobState
from gardener_api.jobs.snapshot import FailedCheck, JobFact, Snapshot
from gardener_api.status.problem import (
    SHOWN,
    UNTAKEN,
    JobLink,
    Problem,
    at_least,
    counted,
    lines,
    links,
)

TABLE_STAGE = dt.timedelta(hours=1)
"""Maximum duration of a table stage, such as ``loading``."""


def table_problems(
    config: GardenerConfig, snapshot: Snapshot, *, now: dt.datetime
) -> Iterator[Problem]:
    """Find jobs whose tables are not started, will never be, or take too long.

    Args:
        config: The configuration.
        snapshot: The current state of the jobs.
        now: The time.
    """
    sources = {source.name for source in config.sources}
    skipped = [
        job
        for job in snapshot.in_tables
        if job.state is JobState.POST_PROCESSING
        and (job.date < config.start_date or job.source not in sources)
    ]
    yield from _untaken(snapshot, [job.number for job in skipped], now)
    yield from _skipped(config, skipped)
    yield from _slow_tables(snapshot, now)


def check_problems(snapshot: Snapshot) -> Iterator[Problem]:
    """Find checks that have not passed on dates of the grid."""
    groups: defaultdict[tuple[str, str], list[FailedCheck]] = defaultdict(list)
    for check in snapshot.failed_checks:
        groups[check.severity, check.name].append(check)
    for (severity, name), checks in sorted(groups.items()):
        dates: defaultdict[str, set[dt.date]] = defaultdict(set)
        jobs: dict[int, str] = {}
        for check in checks:
            dates[check.table].add(check.date)
            jobs[check.number] = f"{check.source} {check.date}"
        days = {(check.source, check.date) for check in checks}
        yield Problem(
            title=(
                f"The check {name} has not passed on {len(days)}"
                f" {'date' if len(days) == 1 else 'dates'}:"
                f" {counted(Counter(source for source, _ in days))}"
            ),
            about=lines(
                [
                    *(f"{table}: {spans(some)}" for table, some in sorted(dates.items())),
                    f"{checks[0].date}: {checks[0].description}",
                ]
            ),
            todo=(
                "The job's page says what each check found. Once its cause is mended, materialize"
                " the tables of the date in Dagster: the check is then made again."
            ),
            jobs=tuple(
                JobLink(number=number, label=label) for number, label in list(jobs.items())[:SHOWN]
            ),
            count=len(jobs),
            grave=severity == "error",
        )


def _skipped(config: GardenerConfig, jobs: list[JobFact]) -> Iterator[Problem]:
    if jobs:
        yield Problem(
            title=(
                f"{count_jobs(len(jobs))} parsed, but the configuration does not have the date or"
                f" the source: {counted(Counter(job.source for job in jobs))}"
            ),
            about=lines(
                f"{source}: {spans(job.date for job in jobs if job.source == source)}"
                for source in sorted({job.source for job in jobs})
            ),
            todo=(
                "Nobody makes their tables; other dates are not affected. To have the tables made,"
                f" set start_date (now {config.start_date}) to the first of these dates, or put the"
                " source back into the configuration, and restart Dagster's code server and the"
                " sidecar."
            ),
            jobs=links(jobs),
            count=len(jobs),
            query={"state": JobState.POST_PROCESSING},
        )


def _untaken(snapshot: Snapshot, skipped: list[int], now: dt.datetime) -> Iterator[Problem]:
    jobs = [
        job
        for job in snapshot.in_tables
        if job.state is JobState.POST_PROCESSING
        and now - job.entered >= UNTAKEN
        and job.number not in skipped
    ]
    if jobs:
        yield Problem(
            title=(
                f"{at_least(snapshot.in_tables, snapshot)}{count_jobs(len(jobs))} parsed, but"
                f" nobody began the tables for"
                f" {human_duration(now - min(job.entered for job in jobs))}"
            ),
            todo=(
                "Is the Dagster daemon running, and the sensor parsed_jobs on? See Deployment →"
                " Daemons and Automation in Dagster. If both are, the runs wait in Runs → Queued."
            ),
            jobs=links(jobs),
            count=len(jobs),
            query={"state": JobState.POST_PROCESSING},
        )


def _slow_tables(snapshot: Snapshot, now: dt.datetime) -> Iterator[Problem]:
    jobs = [
        job
        for job in snapshot.in_tables
        if job.state in TABLE_STATES and now - job.entered >= TABLE_STAGE
    ]
    if jobs:
        states = Counter(job.state for job in jobs)
        yield Problem(
            title=(
                f"{at_least(snapshot.in_tables, snapshot)}{count_jobs(len(jobs))} in a stage of the"
                f" tables for more than {human_duration(TABLE_STAGE)}: {counted(states)}"
            ),
            todo=(
                "Open the job's Dagster run. If it hangs, terminate it: the job is then failed, and"
                " its tables can be materialized again. If it is over, see whether the Dagster"
                " daemon is running."
            ),
            jobs=links(jobs),
            count=len(jobs),
            query={"state": ",".join(states)},
        )
