"""What is wrong now, and what to do about it: facts in, problems out.

Pure: no store, no clock, no HTML. Where the facts come from is ``overview``'s, how a problem looks
is the templates'. Every limit in time that decides whether something is wrong stands here.
"""

import datetime as dt
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gardener_api.config import GardenerConfig
from gardener_api.jobs import LEASE_EXPIRED, PARSING_STATES, TABLE_STATES, JobState
from gardener_api.words import count_jobs, human_duration, spans

GRID_DAYS = 30
"""Days, up to yesterday, that are looked at for missing ones, and shown."""
LATELY = dt.timedelta(hours=24)
"""Lost attempts are told for so long."""
UNTAKEN = dt.timedelta(minutes=30)
"""That the tables of a parsed date, or a queued job, may wait to be begun."""
TABLE_STAGE = dt.timedelta(hours=1)
"""That a stage of the tables may take."""
QUIET = dt.timedelta(minutes=30)
"""That a parser may say nothing about any job it holds; with a short lease, half of that."""
LEASE_GRACE = dt.timedelta(minutes=2)
"""That a lease may be over before somebody notices; the sidecar looks at least every 30 s."""
ASKED_AT = dt.timedelta(hours=10, minutes=30)
"""When the daily schedule asks for the day before, after midnight UTC."""
ASK_GRACE = dt.timedelta(hours=1)
"""From the schedule's time to the job's being there."""
BEHIND = dt.timedelta(days=2)
"""That a date may be on its way before its source counts as behind."""
SHOWN = 8
"""Jobs that a problem links to, at most."""
NAMED = 5
"""Sources or states that a title names, at most."""
LINES = 6
"""Of what a problem tells, at most."""
_ADVICE = " What to do: "  # what the tables' errors end with
_LEASE_ENDED = "lease ended"  # what the errors of `calls.expire_lease` begin with
_LONGEST_TEXT = 60  # that is searched for

SourceDates = dict[str, list[dt.date]]


@dataclass(frozen=True, kw_only=True, slots=True)
class JobFact:
    """As much of a job as problems and the grid need."""

    number: int
    experiment: str
    datatype: str
    date: dt.date
    state: JobState
    failed_in: JobState | None
    error: str
    parser: str
    entered: dt.datetime
    updated: dt.datetime | None
    lease_expires: dt.datetime | None

    @property
    def source(self) -> str:
        """``<experiment>/<datatype>``."""
        return f"{self.experiment}/{self.datatype}"


@dataclass(frozen=True, kw_only=True, slots=True)
class LostAttempt:
    """A parser gave an attempt up, or was silent for too long."""

    number: int  # of the job
    experiment: str
    datatype: str
    date: dt.date
    name: str  # LEASE_EXPIRED or PARSE_ERROR
    at: dt.datetime
    detail: str

    @property
    def source(self) -> str:
        """``<experiment>/<datatype>``."""
        return f"{self.experiment}/{self.datatype}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What is known of the jobs at one time."""

    failed: Sequence[JobFact] = ()  # the newest of their keys
    in_hand: Sequence[JobFact] = ()  # those that a parser holds
    in_tables: Sequence[JobFact] = ()  # those whose parse is done, and that have not ended
    lost: Sequence[LostAttempt] = ()
    queued: int = 0
    head: JobFact | None = None  # the first of the queue
    handed_out: dt.datetime | None = None  # the last time that any job was
    recent: Sequence[JobFact] = ()  # the newest of each key, of the days of the grid
    complete: Collection[tuple[str, dt.date]] = ()  # of these days: source and date, however old
    begun: dt.datetime | None = None  # when the first job of all was made


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
        *_nobody_asks(facts, now),
        *_untaken(facts, now),
        *_slow_tables(facts, now),
        *_failed(facts),
        *_quiet_parsers(config, facts, now),
        *_missing(config, facts, now),
        *_lost(config, facts, now),
    ]


def last_due(now: dt.datetime) -> dt.date:
    """The newest date that the daily schedule has certainly asked for."""
    return (now - ASKED_AT - ASK_GRACE).date() - dt.timedelta(days=1)


def missing_dates(config: GardenerConfig, facts: Facts, *, now: dt.datetime) -> SourceDates:
    """The dates of the grid that are due, and that are neither complete nor have a job.

    Not due: before the start of the history, and before there was a gardener to ask for them.
    """
    if facts.begun is None:
        return {}
    known = {(job.source, job.date) for job in facts.recent if job.state is not JobState.WITHDRAWN}
    first = max(grid_dates(now)[0], config.start_date, last_due(facts.begun))
    days = [date for date in grid_dates(now) if first <= date <= last_due(now)]
    missing = {
        source.name: [
            date
            for date in days
            if (source.name, date) not in known and (source.name, date) not in facts.complete
        ]
        for source in config.sources
    }
    return {name: dates for name, dates in missing.items() if dates}


def grid_dates(now: dt.datetime) -> list[dt.date]:
    """The dates of the grid, the oldest first."""
    return [now.date() - dt.timedelta(days=back) for back in range(GRID_DAYS, 0, -1)]


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
                f"{count_jobs(len(jobs))} parsed, but nobody began the tables for"
                f" {human_duration(now - min(job.entered for job in jobs))}"
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
                f"{count_jobs(len(jobs))} in a stage of the tables for more than"
                f" {human_duration(TABLE_STAGE)}: {_counted(states)}"
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
            title=f"{count_jobs(len(jobs))} failed in {state}: {_counted(sources)}",
            about=newest.error.partition(_ADVICE)[0],
            todo=what_to_do(newest.error, failed_in=newest.failed_in, source=source),
            jobs=_links(jobs),
            count=len(jobs),
            query={name: value for name, value in query.items() if value},
        )


def _quiet_parsers(config: GardenerConfig, facts: Facts, now: dt.datetime) -> Iterator[Problem]:
    limit = min(QUIET, config.tracker.timeout / 2)
    held: defaultdict[str, list[JobFact]] = defaultdict(list)
    for job in facts.in_hand:
        held[job.parser].append(job)
    quiet: defaultdict[tuple[str, bool], list[list[JobFact]]] = defaultdict(list)
    for _, jobs in sorted(held.items()):
        if now - _last_call(jobs) >= limit:
            quiet[_quiet_advice(jobs, now)].append(jobs)
    for (todo, grave), parsers in quiet.items():
        every = [job for jobs in parsers for job in jobs]
        yield Problem(
            title=(
                f"{len(parsers)} {'parser is' if len(parsers) == 1 else 'parsers are'} quiet,"
                f" with {count_jobs(len(every))}"
            ),
            about=_lines(
                f"{jobs[0].parser or 'unknown'}: for {human_duration(now - _last_call(jobs))},"
                f" has {count_jobs(len(jobs))}"
                for jobs in parsers
            ),
            todo=todo,
            jobs=_links(every),
            count=len(every),
            grave=grave,
        )


def _last_call(jobs: Iterable[JobFact]) -> dt.datetime:
    return max(job.updated or job.entered for job in jobs)


def _quiet_advice(jobs: Sequence[JobFact], now: dt.datetime) -> tuple[str, bool]:
    """What to do about a quiet parser, and whether it will not end by itself."""
    ends = [job.lease_expires for job in jobs if job.lease_expires]
    if ends and now - min(ends) > LEASE_GRACE:
        return (
            "Their leases are over, and the sidecar did not take the jobs back: see its log for"
            " errors of the store.",
            True,
        )
    alone = " When its lease ends, another parser gets the job."
    if all(job.state is JobState.INIT for job in jobs):
        return (
            "It took a job and said nothing since, as one does that cannot list the archives or"
            f" read the filter: see its log.{alone}",
            False,
        )
    return f"See whether it runs, and its log.{alone}", False


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
    behind = {
        name: newest
        for name, newest in _newest_complete(config, facts).items()
        if name not in missing and newest < last_due(now) - BEHIND
    }
    if behind:
        yield Problem(
            title=f"{len(behind)} {'source is' if len(behind) == 1 else 'sources are'} behind",
            about=_lines(f"{name}: complete up to {date}" for name, date in behind.items()),
            todo=(
                "Their newer dates failed or are on their way: see the grid. If they are queued,"
                " there are too few parsers for what was asked for."
            ),
        )


def _newest_complete(config: GardenerConfig, facts: Facts) -> Mapping[str, dt.date]:
    """Of each source that has any job in the grid: the newest complete date, or the one before it."""
    newest = {
        source.name: min(job.date for job in jobs) - dt.timedelta(days=1)
        for source in config.sources
        if (jobs := [job for job in facts.recent if job.source == source.name])
    }
    for name, date in facts.complete:
        if name in newest:
            newest[name] = max(newest[name], date)
    return newest


def _lost(config: GardenerConfig, facts: Facts, now: dt.datetime) -> Iterator[Problem]:
    lost = [attempt for attempt in facts.lost if now - attempt.at <= LATELY]
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
                f"Each job is tried {config.tracker.max_attempts} times, so this may end well. If it"
                " goes on, see the parsers' logs."
            ),
            jobs=tuple(
                JobLink(number=number, label=f"{source} {date}")
                for number, date, source in list(jobs)[:SHOWN]
            ),
            count=len(jobs),
            grave=False,
        )


def shape(error: str) -> str:
    """What errors of one kind have in common: the text without names in quotes, paths and numbers."""
    text = error.partition(_ADVICE)[0].partition(" BigQuery job ")[0]
    text = re.sub(r"'[^']*'|\"[^\"]*\"|`[^`]*`|\b\w+://\S+", "…", text)
    return re.sub(r"[\w.$:-]*\d[\w.$:-]*", "#", text)[:200]


def _searched(error: str) -> str:
    """The beginning that errors of one kind share, where it is long enough to find them by."""
    text = re.split(r"['\"`\d]|\w+://", error, maxsplit=1)[0][:_LONGEST_TEXT].rstrip()
    return text if len(text) >= len(_LEASE_ENDED) else ""


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
