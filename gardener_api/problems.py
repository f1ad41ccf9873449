"""What is wrong now, and what to do about it: facts in, problems out.

Pure: no store, no clock, no HTML. The facts are ``facts``', how a problem looks is the templates'.
Every limit in time that decides whether something is wrong stands here.
"""

import datetime as dt
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gardener_api.config import GardenerConfig
from gardener_api.facts import GRID_DAYS, LATELY, Facts, JobFact, missing_dates
from gardener_api.jobs import LEASE_EXPIRED, PARSING_STATES, TABLE_STATES, JobState
from gardener_api.words import count_jobs, human_duration, spans

UNTAKEN = dt.timedelta(minutes=30)
"""That the tables of a parsed date, or a queued job, may wait to be begun."""
SLOW_QUEUE = dt.timedelta(days=1)
"""That a date of the last days may wait for a parser."""
TABLE_STAGE = dt.timedelta(hours=1)
"""That a stage of the tables may take."""
QUIET = dt.timedelta(minutes=30)
"""That a parser may say nothing about a job it holds; at most half of the lease."""
LEASE_GRACE = dt.timedelta(minutes=2)
"""That a lease may be over before somebody notices; the sidecar looks at least every 30 s."""
SHOWN = 8
"""Jobs that a problem links to, at most."""
NAMED = 5
"""Sources or states that a title names, at most."""
LINES = 6
"""Of what a problem tells, at most."""
_ADVICE = " What to do: "  # what the tables' errors end with
_LEASE_ENDED = "lease ended"  # what the errors of `calls.expire_lease` begin with
_LONGEST_TEXT = 60  # that is searched for


@dataclass(frozen=True, kw_only=True, slots=True)
class JobLink:
    """A job that a problem is about."""

    number: int
    label: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Something that is wrong."""

    title: str
    todo: str
    about: str = ""  # the error, or which dates
    jobs: tuple[JobLink, ...] = ()
    count: int = 0  # of the jobs that it is about, linked or not
    query: Mapping[str, str] | None = None  # of the list that shows them
    grave: bool = True  # else it may end well by itself


def find_problems(config: GardenerConfig, facts: Facts, *, now: dt.datetime) -> list[Problem]:
    """Everything that is wrong, what stops the most first.

    Args:
        config: The gardener's.
        facts: The jobs as they are.
        now: The time.
    """
    return [
        *(list(_nobody_asks(facts, now)) or _slow_queue(facts, now)),
        *_untaken(facts, now),
        *_slow_tables(facts, now),
        *_past_lease(facts, now),
        *_failed(facts),
        *_quiet_parsers(config, facts, now),
        *_missing(config, facts, now),
        *_without_archives(config, facts),
        *_lost(config, facts, now),
    ]


def what_to_do(error: str, *, failed_in: JobState | None, source: str) -> str:
    """What to do about a failed job: what its error says, else what its state tells."""
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


def _nobody_asks(facts: Facts, now: dt.datetime) -> Iterator[Problem]:
    head = facts.head
    # With a job in the queue, every call of `next` hands one out: so hand-outs show who asks.
    if head is None or now - max(head.entered, facts.handed_out or head.entered) < UNTAKEN:
        return
    last = f"{facts.handed_out:%Y-%m-%d %H:%M} UTC" if facts.handed_out else "never"
    yield Problem(
        title=f"No parser asks for jobs: {count_jobs(facts.queued)} queued",
        about=(
            f"The first of the queue waits since {head.entered:%Y-%m-%d %H:%M} UTC"
            f" ({human_duration(now - head.entered)}). A job was last handed out: {last}."
        ),
        todo="See whether the parsers run, and in their logs whether they reach the jobs port.",
        jobs=_links([head]),
        count=facts.queued,
        query={"state": JobState.QUEUED, "sort": "state"},
    )


def _untaken(facts: Facts, now: dt.datetime) -> Iterator[Problem]:
    jobs = [
        job
        for job in facts.in_tables
        if job.state is JobState.POST_PROCESSING and now - job.entered >= UNTAKEN
    ]
    if jobs:
        yield Problem(
            title=(
                f"{_at_least(facts.in_tables, facts)}{count_jobs(len(jobs))} parsed, but nobody"
                f" began the tables for {human_duration(now - min(job.entered for job in jobs))}"
            ),
            todo=(
                "Is the Dagster daemon running, and the sensor parsed_jobs on? See Deployment →"
                " Daemons and Automation in Dagster. If both are, the runs wait in Runs → Queued."
            ),
            jobs=_links(jobs),
            count=len(jobs),
            query={"state": JobState.POST_PROCESSING},
        )


def _slow_tables(facts: Facts, now: dt.datetime) -> Iterator[Problem]:
    jobs = [
        job
        for job in facts.in_tables
        if job.state in TABLE_STATES and now - job.entered >= TABLE_STAGE
    ]
    if jobs:
        states = Counter(job.state for job in jobs)
        yield Problem(
            title=(
                f"{_at_least(facts.in_tables, facts)}{count_jobs(len(jobs))} in a stage of the"
                f" tables for more than {human_duration(TABLE_STAGE)}: {_counted(states)}"
            ),
            todo=(
                "Open the job's Dagster run. If it hangs, terminate it: the job is then failed, and"
                " its tables can be materialized again. If it is over, see whether the Dagster"
                " daemon is running."
            ),
            jobs=_links(jobs),
            count=len(jobs),
            query={"state": ",".join(states)},
        )


def _failed(facts: Facts) -> Iterator[Problem]:
    groups: defaultdict[tuple[str, str], list[JobFact]] = defaultdict(list)
    for job in facts.failed:
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
                f"{_at_least(facts.failed, facts)}{count_jobs(len(jobs))} failed in {state}:"
                f" {_counted(sources)}"
            ),
            about=newest.error.partition(_ADVICE)[0],
            todo=what_to_do(newest.error, failed_in=newest.failed_in, source=source),
            jobs=_links(jobs),
            count=len(jobs),
            query={name: value for name, value in query.items() if value},
        )


def _past_lease(facts: Facts, now: dt.datetime) -> Iterator[Problem]:
    jobs = [job for job in facts.in_hand if _is_past_lease(job, now)]
    if jobs:
        yield Problem(
            title=f"{count_jobs(len(jobs))} past the end of the lease",
            todo=(
                "The sidecar should have taken it back within half a minute: see its log for"
                " errors of the store."
            ),
            jobs=_links(jobs),
            count=len(jobs),
        )


def _quiet_parsers(config: GardenerConfig, facts: Facts, now: dt.datetime) -> Iterator[Problem]:
    # By job, not by parser: many share an address, and one that lost a job takes the next.
    limit = min(QUIET, config.tracker.timeout / 2)
    quiet: defaultdict[JobState, list[JobFact]] = defaultdict(list)
    for job in facts.in_hand:
        if now - _last_call(job) >= limit and not _is_past_lease(job, now):
            quiet[job.state].append(job)
    for state, jobs in sorted(quiet.items()):
        parsers = Counter(job.parser or "unknown" for job in jobs)
        silence = human_duration(now - min(map(_last_call, jobs)))
        yield Problem(
            title=(
                f"{count_jobs(len(jobs))} in {state} without a word from the parser for up to"
                f" {silence}: {_counted(parsers)}"
            ),
            todo=(
                "A parser that cannot list the archives, or read the filter, says nothing: see its"
                " log."
                if state is JobState.INIT
                else "See whether the parser runs, and its log."
            )
            + " At the end of the lease another one gets the job, by itself.",
            jobs=_links(jobs),
            count=len(jobs),
            grave=False,
        )


def _last_call(job: JobFact) -> dt.datetime:
    return job.updated or job.entered


def _is_past_lease(job: JobFact, now: dt.datetime) -> bool:
    return job.lease_expires is not None and now - job.lease_expires > LEASE_GRACE


def _missing(config: GardenerConfig, facts: Facts, now: dt.datetime) -> Iterator[Problem]:
    missing = missing_dates(config, facts, now=now)
    by_dates: defaultdict[str, list[str]] = defaultdict(list)
    for name, dates in missing.items():
        by_dates[spans(dates)].append(name)
    if missing:
        days = sum(map(len, missing.values()))
        yield Problem(
            title=f"{days} {'day is' if days == 1 else 'days are'} missing: no job was made",
            about=_lines(f"{', '.join(names)}: {dates}" for dates, names in by_dates.items()),
            todo=(
                "Is the Dagster daemon running, and the schedule daily on? See whether its run of"
                " that day failed. Then materialize parsed/… for these dates."
            ),
        )


def _without_archives(config: GardenerConfig, facts: Facts) -> Iterator[Problem]:
    # Some sources rest for months: a day is odd where other days of the source have archives.
    resting = {s.name for s in config.sources} - {
        job.source for job in facts.recent if job.archives
    }
    jobs = [
        job
        for job in facts.recent
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
                f" {_counted(Counter(job.source for job in jobs))}"
            ),
            about=_lines(f"{source}: {spans(some)}" for source, some in sorted(dates.items())),
            todo=(
                "See whether the nodes' archives of the date reach the bucket: the job's page links"
                " to its folder. When they have come, materialize parsed/… for the date in Dagster"
                + (f"; within {late} days the gardener does so by itself." if late else ".")
            ),
            jobs=_links(jobs),
            count=len(jobs),
            grave=False,
        )


def _slow_queue(facts: Facts, now: dt.datetime) -> Iterator[Problem]:
    jobs = [
        job
        for job in facts.recent
        if job.state is JobState.QUEUED
        and now - job.entered >= SLOW_QUEUE
        and (job.source, job.date) not in facts.complete
    ]
    if jobs:
        yield Problem(
            title=(
                f"{count_jobs(len(jobs))} of the last {GRID_DAYS} days queued for more than"
                f" {human_duration(SLOW_QUEUE)}: {_counted(Counter(job.source for job in jobs))}"
            ),
            todo=(
                "There are too few parsers for what was asked for: run more, or withdraw what is"
                " less urgent by cancelling its backfill."
            ),
            jobs=_links(jobs),
            count=len(jobs),
            query={"state": JobState.QUEUED, "sort": "state"},
        )


def _lost(config: GardenerConfig, facts: Facts, now: dt.datetime) -> Iterator[Problem]:
    told = {job.number for job in facts.failed}
    lost = [a for a in facts.lost if now - a.at <= LATELY and a.number not in told]
    for name in sorted({attempt.name for attempt in lost}):
        some = [attempt for attempt in lost if attempt.name == name]
        newest = max(some, key=lambda attempt: attempt.at)
        jobs = {(a.number, a.date, a.source): None for a in some}
        how = "its lease ended" if name == LEASE_EXPIRED else "the parser gave it up"
        yield Problem(
            title=(
                f"{len(some)} {'attempt' if len(some) == 1 else 'attempts'} lost since"
                f" {now - LATELY:%Y-%m-%d %H:%M} UTC: {how}"
            ),
            about=f"{newest.at:%Y-%m-%d %H:%M} UTC: {newest.detail}",
            todo=(
                f"Each job is tried {config.tracker.max_attempts} times, so this may end well."
                " If it goes on, see the parsers' logs."
            ),
            jobs=tuple(
                JobLink(number=number, label=f"{source} {date}")
                for number, date, source in list(jobs)[:SHOWN]
            ),
            count=len(jobs),
            grave=False,
        )


def shape(error: str) -> str:
    """What errors of one kind have in common: no names in quotes, no URLs, no numbers."""
    text = error.partition(_ADVICE)[0].partition(" BigQuery job ")[0]
    text = re.sub(r"'[^']*'|\"[^\"]*\"|`[^`]*`|\b\w+://\S+", "…", text)
    return re.sub(r"[\w.$:-]*\d[\w.$:-]*", "#", text)[:200]


def _searched(error: str) -> str:
    """The beginning that errors of one kind share, where it is long enough to find them by."""
    text = re.split(r"['\"`\d]|\w+://", error, maxsplit=1)[0][:_LONGEST_TEXT].rstrip()
    return text if len(text) >= len(_LEASE_ENDED) else ""


def _at_least(jobs: Sequence[JobFact], facts: Facts) -> str:
    """What stands before a number of jobs out of a list, which may have been cut."""
    return "At least " if len(jobs) >= facts.most else ""


def _counted(names: Counter[str] | Counter[JobState]) -> str:
    """Names, the most frequent first, each with its number where there are several."""
    if len(names) == 1:
        return next(iter(names))
    named = [f"{name} {n}" for name, n in names.most_common(NAMED)]
    more = len(names) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _lines(lines: Iterable[str]) -> str:
    listed = list(lines)
    more = len(listed) - LINES
    return "\n".join(listed[:LINES] + ([f"and {more} more: see the grid"] if more > 0 else []))


def _links(jobs: Iterable[JobFact]) -> tuple[JobLink, ...]:
    newest = sorted(jobs, key=lambda job: (job.date, job.source), reverse=True)[:SHOWN]
    return tuple(JobLink(number=j.number, label=f"{j.source} {j.date}") for j in newest)
