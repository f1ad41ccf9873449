"""What is wrong now, and what to do about it: a snapshot in, problems out.

Pure: no store, no clock, no HTML. ``jobs.snapshot`` defines the snapshot; templates render the
problems. ``table_problems`` finds the problems of tables.
"""

import datetime as dt
import re
from collections import Counter, defaultdict
from collections.abc import Iterator

from gardener_api.config import GardenerConfig
from gardener_api.formatting import count_jobs, human_duration, spans
from gardener_api.jobs.job import LEASE_EXPIRED, PARSING_STATES, JobState
from gardener_api.jobs.snapshot import GRID_DAYS, LATELY, JobFact, Snapshot, missing_dates
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
from gardener_api.status.table_problems import check_problems, table_problems

SLOW_QUEUE = dt.timedelta(days=1)
"""How long a job of the grid's dates may wait for a parser."""
QUIET = dt.timedelta(minutes=30)
"""How long a parser that holds a job may be silent; at most half of the lease."""
LEASE_GRACE = dt.timedelta(minutes=2)
"""How long an ended lease may go unnoticed; the sidecar checks at least every 30 s."""
_ADVICE = " What to do: "  # separates an error of the tables from its advice
_LEASE_ENDED = "lease ended"  # prefix of the errors of `parser_calls.expire_lease`
_LONGEST_TEXT = 60  # maximum characters of a text search


def find_problems(config: GardenerConfig, snapshot: Snapshot, *, now: dt.datetime) -> list[Problem]:
    """Return all problems, those that block the most work first.

    Args:
        config: The configuration.
        snapshot: The current state of the jobs.
        now: The time.
    """
    return [
        *(list(_nobody_asks(snapshot, now)) or _slow_queue(snapshot, now)),
        *table_problems(config, snapshot, now=now),
        *_past_lease(snapshot, now),
        *_failed(snapshot),
        *_quiet_parsers(config, snapshot, now),
        *_missing(config, snapshot, now),
        *check_problems(snapshot),
        *_without_archives(config, snapshot),
        *_damaged(snapshot),
        *_lost(config, snapshot, now),
    ]


def what_to_do(error: str, *, failed_in: JobState | None, source: str) -> str:
    """Return what to do about a failed job: the advice in its error, else that for its state."""
    _, _, advice = error.partition(_ADVICE)
    if advice:
        return advice[:1].upper() + advice[1:]
    again = f"materialize parsed/{source} for the date in Dagster"
    if failed_in not in PARSING_STATES:
        return (
            "Open the job's Dagster run: its failed step says which operation on which table"
            " failed. Mend that, then re-execute the run from its failure; the parse is kept."
        )
    if error.startswith(_LEASE_ENDED):
        return f"See the parser's log around its last call: it ended, or hangs. Then {again}."
    return f"The message is the parser's: see its log, mend what it names, then {again}."


def _nobody_asks(snapshot: Snapshot, now: dt.datetime) -> Iterator[Problem]:
    head = snapshot.head
    # While jobs are queued, every call of `next` hands one out: no handout means no calls.
    if head is None or now - max(head.entered, snapshot.handed_out or head.entered) < UNTAKEN:
        return
    last = f"{snapshot.handed_out:%Y-%m-%d %H:%M} UTC" if snapshot.handed_out else "never"
    yield Problem(
        title=f"No parser asks for jobs: {count_jobs(snapshot.queued)} queued",
        about=(
            f"The first of the queue waits since {head.entered:%Y-%m-%d %H:%M} UTC"
            f" ({human_duration(now - head.entered)}). A job was last handed out: {last}."
        ),
        todo="See whether the parsers run, and in their logs whether they reach the jobs port.",
        jobs=links([head]),
        count=snapshot.queued,
        query={"state": JobState.QUEUED, "sort": "state"},
    )


def _failed(snapshot: Snapshot) -> Iterator[Problem]:
    groups: defaultdict[tuple[str, str], list[JobFact]] = defaultdict(list)
    for job in snapshot.failed:
        groups[job.failed_in or "", shape(job.error)].append(job)
    for (state, _), jobs in sorted(groups.items(), key=lambda group: -len(group[1])):
        newest = max(jobs, key=lambda job: job.entered)
        sources = Counter(job.source for job in jobs)
        source = newest.source if len(sources) == 1 else "…"
        query: dict[str, str] = {"state": JobState.FAILED, "text": _searched(newest.error)}
        if len(sources) == 1:
            query |= {"experiment": newest.experiment, "datatype": newest.datatype}
        yield Problem(
            title=(
                f"{at_least(snapshot.failed, snapshot)}{count_jobs(len(jobs))} failed in {state}:"
                f" {counted(sources)}"
            ),
            about=newest.error.partition(_ADVICE)[0],
            todo=what_to_do(newest.error, failed_in=newest.failed_in, source=source),
            jobs=links(jobs),
            count=len(jobs),
            query={name: value for name, value in query.items() if value},
        )


def _past_lease(snapshot: Snapshot, now: dt.datetime) -> Iterator[Problem]:
    jobs = [job for job in snapshot.in_hand if _is_past_lease(job, now)]
    if jobs:
        yield Problem(
            title=f"{count_jobs(len(jobs))} past the end of the lease",
            todo=(
                "The sidecar should have taken it back within half a minute: see its log for"
                " errors of the store."
            ),
            jobs=links(jobs),
            count=len(jobs),
        )


def _quiet_parsers(
    config: GardenerConfig, snapshot: Snapshot, now: dt.datetime
) -> Iterator[Problem]:
    # By job, not by parser: parsers share addresses, and one that lost a job takes another.
    limit = min(QUIET, config.tracker.timeout / 2)
    quiet: defaultdict[JobState, list[JobFact]] = defaultdict(list)
    for job in snapshot.in_hand:
        if now - _last_call(job) >= limit and not _is_past_lease(job, now):
            quiet[job.state].append(job)
    for state, jobs in sorted(quiet.items()):
        parsers = Counter(job.parser or "unknown" for job in jobs)
        silence = human_duration(now - min(map(_last_call, jobs)))
        yield Problem(
            title=(
                f"{count_jobs(len(jobs))} in {state} without a word from the parser for up to"
                f" {silence}: {counted(parsers)}"
            ),
            todo=(
                "A parser that cannot list the archives, or read the filter, says nothing: see its"
                " log."
                if state is JobState.INIT
                else "See whether the parser runs, and its log."
            )
            + " At the end of the lease another one gets the job.",
            jobs=links(jobs),
            count=len(jobs),
            grave=False,
        )


def _last_call(job: JobFact) -> dt.datetime:
    return job.updated or job.entered


def _is_past_lease(job: JobFact, now: dt.datetime) -> bool:
    return job.lease_expires is not None and now - job.lease_expires > LEASE_GRACE


def _missing(config: GardenerConfig, snapshot: Snapshot, now: dt.datetime) -> Iterator[Problem]:
    missing = missing_dates(config, snapshot, now=now)
    by_dates: defaultdict[str, list[str]] = defaultdict(list)
    for name, dates in missing.items():
        by_dates[spans(dates)].append(name)
    if missing:
        days = sum(map(len, missing.values()))
        yield Problem(
            title=f"{days} {'day is' if days == 1 else 'days are'} missing: no job was made",
            about=lines(f"{', '.join(names)}: {dates}" for dates, names in by_dates.items()),
            todo=(
                "Is the Dagster daemon running, and the schedule daily on? See whether its run of"
                " that day failed. Then materialize parsed/… for these dates."
            ),
        )


def _without_archives(config: GardenerConfig, snapshot: Snapshot) -> Iterator[Problem]:
    # Some sources have no archives for months: their days are not reported.
    resting = {s.name for s in config.sources} - {
        job.source for job in snapshot.recent if job.archives
    }
    jobs = [
        job
        for job in snapshot.recent
        if job.archives == 0 and job.state is JobState.COMPLETE and job.source not in resting
    ]
    if jobs:
        dates: defaultdict[str, list[dt.date]] = defaultdict(list)
        for job in jobs:
            dates[job.source].append(job.date)
        late = config.late_archives.days
        yield Problem(
            title=(
                f"{count_jobs(len(jobs))} had no archives, unlike other days of the source:"
                f" {counted(Counter(job.source for job in jobs))}"
            ),
            about=lines(f"{source}: {spans(some)}" for source, some in sorted(dates.items())),
            todo=(
                "See whether the nodes' archives of the date reach the bucket: the job's page links"
                " to its folder. When they have come, materialize parsed/… for the date in Dagster"
                + (f"; within {late} days the gardener does so automatically." if late else ".")
            ),
            jobs=links(jobs),
            count=len(jobs),
            grave=False,
        )


def _slow_queue(snapshot: Snapshot, now: dt.datetime) -> Iterator[Problem]:
    jobs = [
        job
        for job in snapshot.recent
        if job.state is JobState.QUEUED
        and now - job.entered >= SLOW_QUEUE
        and (job.source, job.date) not in snapshot.complete
    ]
    if jobs:
        yield Problem(
            title=(
                f"{count_jobs(len(jobs))} of the last {GRID_DAYS} days queued for more than"
                f" {human_duration(SLOW_QUEUE)}: {counted(Counter(job.source for job in jobs))}"
            ),
            todo=(
                "There are too few parsers for what was asked for: run more, or withdraw what is"
                " less urgent by cancelling its backfill."
            ),
            jobs=links(jobs),
            count=len(jobs),
            query={"state": JobState.QUEUED, "sort": "state"},
        )


def _lost(config: GardenerConfig, snapshot: Snapshot, now: dt.datetime) -> Iterator[Problem]:
    told = {job.number for job in snapshot.failed}
    lost = [a for a in snapshot.lost if now - a.at <= LATELY and a.number not in told]
    for name in sorted({attempt.name for attempt in lost}):
        some = [attempt for attempt in lost if attempt.name == name]
        newest = max(some, key=lambda attempt: attempt.at)
        jobs = {(a.number, a.date, a.source): None for a in some}
        how = "its lease ended" if name == LEASE_EXPIRED else "the parser reported an error"
        yield Problem(
            title=(
                f"{len(some)} {'attempt' if len(some) == 1 else 'attempts'} lost since"
                f" {now - LATELY:%Y-%m-%d %H:%M} UTC: {how}"
            ),
            about=f"{newest.at:%Y-%m-%d %H:%M} UTC: {newest.detail}",
            todo=(
                f"Each job is tried {config.tracker.max_attempts} times, so this may end well."
                " If more attempts are lost, see the parsers' logs."
            ),
            jobs=tuple(
                JobLink(number=number, label=f"{source} {date}")
                for number, date, source in list(jobs)[:SHOWN]
            ),
            count=len(jobs),
            grave=False,
        )


def _damaged(snapshot: Snapshot) -> Iterator[Problem]:
    if damaged := snapshot.damaged:
        sources = Counter(job.source for job in damaged)
        yield Problem(
            title=f"{count_jobs(len(damaged))} with damaged archives: {counted(sources)}",
            about=lines(f"{job.source} {job.date}: {job.detail}" for job in damaged),
            todo=(
                "Their readable rows are in the tables. Compare the archives that are named with"
                " their nodes' copies; when good ones are in the bucket, materialize parsed/… for"
                " the date in Dagster."
            ),
            jobs=tuple(
                JobLink(number=job.number, label=f"{job.source} {job.date}")
                for job in damaged[:SHOWN]
            ),
            count=len(damaged),
            grave=False,
        )


def shape(error: str) -> str:
    """Replace quoted names, URLs and numbers in an error, to group errors of one kind."""
    text = error.partition(_ADVICE)[0].partition(" BigQuery job ")[0]
    text = re.sub(r"'[^']*'|\"[^\"]*\"|`[^`]*`|\b\w+://\S+", "…", text)
    return re.sub(r"[\w.$:-]*\d[\w.$:-]*", "#", text)[:200]


def _searched(error: str) -> str:
    """Return the prefix that errors of one kind share; ``""`` if it is too short to search for."""
    text = re.split(r"['\"`\d]|\w+://", error, maxsplit=1)[0][:_LONGEST_TEXT].rstrip()
    return text if len(text) >= len(_LEASE_ENDED) else ""
