"""Which runs of tables are due, as a pure plan."""

import datetime as dt
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planned_jobs import CONFIG, GATHER, NAMES, NOW, START, day, make_config, make_job, spans

from gardener_api.config import GardenerConfig
from gardener_api.jobs.job import Job, JobState, Parsed, Priority, Request
from gardener_dagster.planning.due_tables import (
    ANNOTATIONS_START_TIMEOUT,
    ANNOTATIONS_TIMEOUT,
    OTHERS_PER_TICK,
    RUNS_PER_TICK,
    SOURCE_RUNS,
    TablesRun,
    awaited_annotations,
    is_cancelled,
    is_worth_waiting,
    tables_due,
    tables_to_start,
    with_joins,
    within_bounds,
)
from gardener_dagster.planning.lost_tables import EndedRun, lost_runs
from gardener_dagster.planning.ranges import ONE_DAY, consecutive


def request(
    backfill: str | None = None, *, tables: bool = True, withdrawn: bool = False
) -> Request:
    return Request(
        requester=backfill or "run",
        run_id="r",
        backfill_id=backfill,
        covers_tables=tables and backfill is not None,
        asked=NOW,
        reported=None,
        withdrawn=NOW if withdrawn else None,
    )


def parsed(*jobs: Job, backfill: str | None = None) -> list[Parsed]:
    return [Parsed(job=job, requests=(request(backfill),)) for job in jobs]


def due(
    items: Iterable[Parsed],
    *,
    config: GardenerConfig = CONFIG,
    taken: Collection[tuple[str, dt.date]] = (),
    requested: Collection[str] = (),
) -> list[TablesRun]:
    return tables_due(
        config, items, taken=frozenset(taken), requested=frozenset(requested), now=NOW
    )


def start(
    runs: Iterable[TablesRun],
    open_jobs: Iterable[Job] = (),
    *,
    unended: Mapping[str, int] = MappingProxyType({}),
) -> list[TablesRun]:
    by_key = {job.key: job for job in open_jobs}
    return tables_to_start(CONFIG, runs, open_jobs=by_key, unended=unended, now=NOW)


# -- ranges


@given(st.sets(st.integers(0, 40)), st.integers(1, 6))
def test_ranges_are_consecutive_and_hold_each_date_once(days: set[int], most: int) -> None:
    ranges = list(consecutive(map(day, days), lambda d: d, most=most))
    assert [d for part in ranges for d in part] == sorted(map(day, days))
    for part in ranges:
        assert len(part) <= most
        assert part[-1] - part[0] == (len(part) - 1) * ONE_DAY
    for before, after in pairwise(ranges):
        assert len(before) == most or after[0] - before[-1] > ONE_DAY


# -- tables


def test_a_full_range_starts_at_once_and_the_rest_waits_for_its_neighbours() -> None:
    runs = due(parsed(*map(make_job, range(1, 7))))
    assert spans(runs) == [(1, 4), (5, 6)]
    coming = make_job(7, state=JobState.PARSING)
    assert spans(start(runs, [coming])) == [(1, 4)]
    assert spans(start(runs)) == [(1, 4), (5, 6)]


@pytest.mark.parametrize(("age", "starts"), [(GATHER - ONE_DAY / 86_400, False), (GATHER, True)])
def test_the_oldest_date_of_a_range_waits_no_longer_than_gather(
    age: dt.timedelta, starts: bool
) -> None:
    runs = due(parsed(make_job(1, age=age), make_job(2)))
    coming = make_job(3, state=JobState.QUEUED)
    assert bool(start(runs, [coming])) is starts


@pytest.mark.parametrize("priority", [Priority.BACKFILL, Priority.HISTORICAL])
def test_a_run_waits_while_the_tables_of_its_annotations_are_made(priority: Priority) -> None:
    runs = due(parsed(*(make_job(n, "ndt/ndt7", priority=priority) for n in (1, 2))))
    for number in (0, 1, 2):  # of the day before, too
        made = make_job(number, state=JobState.COPYING, priority=priority)
        assert start(runs, [made]) == []
        assert start(runs, [replace(made, state=JobState.COMPLETE)]) == runs


def test_a_run_does_not_wait_for_annotations_that_will_take_long() -> None:
    [run] = due(parsed(make_job(1, "ndt/ndt7")))
    made = make_job(1, state=JobState.LOADING)
    for slow in (
        make_job(1, state=JobState.PARSING),  # parsers have them
        replace(made, priority=Priority.HISTORICAL),  # others come before them
    ):
        assert start([run], [slow]) == [run]
    before = make_job(0, state=JobState.QUEUED)
    assert start([run], [made, before]) == [run]
    # The join does not wait for what is less urgent of the day before: nor does the run.
    assert start([run], [made, replace(before, priority=Priority.HISTORICAL)]) == []


def test_a_run_does_not_wait_for_annotations_that_stand_still() -> None:
    runs = due(parsed(make_job(1, "ndt/ndt7", age=10 * GATHER)))
    for age, starts in ((ANNOTATIONS_TIMEOUT - GATHER, False), (ANNOTATIONS_TIMEOUT, True)):
        made = make_job(1, state=JobState.LOADING, age=age)
        assert bool(start(runs, [made])) is starts


def test_a_run_waits_for_annotations_whose_run_is_still_to_come() -> None:
    runs = due(parsed(make_job(1, "ndt/ndt7", age=10 * GATHER)))
    assert start(runs, [make_job(1, age=2 * ANNOTATIONS_TIMEOUT)]) == []
    # Of a date before the first partition nobody makes tables.
    [first] = due(parsed(make_job(0, "ndt/ndt7")))
    assert start([first], [make_job(0, state=JobState.COMPLETE), make_job(-1)]) == [first]


def test_a_daily_run_waits_for_annotations_at_its_join_and_not_before() -> None:
    [run] = due(parsed(make_job(1, "ndt/ndt7", priority=Priority.DAILY)))
    made = make_job(1, state=JobState.LOADING, priority=Priority.DAILY)
    assert start([run], [made]) == [run]

    def joined(*jobs: Job, made: Collection[dt.date] = ()) -> bool:
        open_jobs = {job.key: job for job in jobs}
        return with_joins(CONFIG, run, made=set(made), open_jobs=open_jobs, now=NOW).joined

    assert joined(made)
    assert not joined(replace(made, state=JobState.PARSING))
    assert not joined(replace(made, priority=Priority.BACKFILL))
    assert not joined(make_job(1, state=JobState.LOADING, age=ANNOTATIONS_TIMEOUT))
    before = make_job(0, state=JobState.LOADING, priority=Priority.DAILY)
    assert joined(made, before)
    assert not joined(before)  # those of the date itself were never made
    assert joined(before, made={day(1)})
    assert not joined(made, replace(before, state=JobState.QUEUED))


@pytest.mark.parametrize(
    ("state", "worth_it"),
    [
        (JobState.PARSING, dt.timedelta()),
        (JobState.POST_PROCESSING, ANNOTATIONS_START_TIMEOUT),
        (JobState.LOADING, ANNOTATIONS_TIMEOUT),
    ],
)
def test_a_run_waits_at_its_join_only_for_annotations_that_are_being_made(
    state: JobState, worth_it: dt.timedelta
) -> None:
    just, over = (make_job(1, state=state, age=worth_it - s * GATHER) for s in (1, 0))
    assert is_worth_waiting([just], now=NOW) is bool(worth_it)
    assert not is_worth_waiting([just, over], now=NOW)


def test_of_a_date_what_is_joined_starts_after_what_it_reads_and_before_the_others() -> None:
    jobs = [make_job(n, name) for name in reversed(NAMES) for n in (1, 3)]
    assert [(run.source.name, *spans([run])) for run in due(parsed(*jobs))] == [
        (name, (n, n)) for n in (1, 3) for name in NAMES
    ]


def test_a_run_of_what_is_joined_with_nothing_waits_for_no_annotations() -> None:
    runs = due(parsed(make_job(1, "ndt/tcpinfo")))
    assert start(runs, [make_job(1, state=JobState.LOADING)]) == runs


def test_what_a_person_cancelled_is_no_whole_chain_any_more() -> None:
    gone = frozenset({"b"})
    assert is_cancelled([request("b")], gone)
    assert is_cancelled([request("b", withdrawn=True)], gone)
    assert not is_cancelled([request("b"), request()], gone)
    assert not is_cancelled([request("b"), request("c")], gone)
    assert not is_cancelled([request("b", tables=False, withdrawn=True)], gone)
    assert not is_cancelled([], gone)


def test_a_run_key_names_the_attempts() -> None:
    [run] = due(parsed(make_job(1), make_job(2)))
    again = replace(run, jobs=(run.jobs[0], replace(run.jobs[1], generation=2)))
    assert run.run_key != again.run_key
    [single] = due(parsed(make_job(1)))
    assert single.run_key == single.jobs[0].id


def test_the_joins_follow_in_the_same_run_where_all_of_its_dates_are_ready() -> None:
    [run] = due(parsed(make_job(1, "ndt/ndt7"), make_job(2, "ndt/ndt7")))
    made = {day(1), day(2)}
    assert with_joins(CONFIG, run, made=made, open_jobs={}, now=NOW).joined
    assert not with_joins(CONFIG, run, made={day(1)}, open_jobs={}, now=NOW).joined
    coming = make_job(2, state=JobState.PARSING)
    assert not with_joins(CONFIG, run, made=made, open_jobs={coming.key: coming}, now=NOW).joined


def test_a_daily_join_does_not_wait_for_a_pass_over_history_of_the_day_before() -> None:
    annotations = CONFIG.source("ndt/annotation2")
    before = make_job(1, state=JobState.QUEUED, priority=Priority.HISTORICAL)

    def waits(priority: Priority) -> bool:
        return bool(awaited_annotations(annotations, day(2), {before.key: before}, priority))

    assert not waits(Priority.DAILY)
    assert waits(Priority.HISTORICAL)


def test_a_lost_run_is_one_that_was_started_after_the_parse() -> None:
    job = make_job(1, age=dt.timedelta(minutes=5))
    older, newer = (
        EndedRun(run_id=f"r{minutes}", status="FAILURE", created=NOW - minutes * GATHER)
        for minutes in (9, 1)
    )

    def lost(*runs: EndedRun) -> list[str]:
        by_date = {(job.key.source, job.key.date): runs}
        return [found.run_id for found in lost_runs([job], by_id={}, by_date=by_date)]

    assert lost(older) == []
    assert lost(older, newer) == ["r1"]


NUMBERS = st.sets(st.tuples(st.sampled_from(NAMES), st.integers(-3, 62)), max_size=60)


@st.composite
def some_parsed(draw: st.DrawFn) -> list[Parsed]:
    """Parsed jobs of any priority, some of backfills; some of dates that are no partitions."""
    return [
        Parsed(
            job=make_job(number, name, priority=draw(st.sampled_from(Priority))),
            requests=(request(draw(st.sampled_from([None, "b", "c", "over"]))),),
        )
        for name, number in sorted(draw(NUMBERS))
    ]


@given(some_parsed(), NUMBERS, st.integers(1, 20))
def test_each_due_date_is_in_one_run_of_its_like(
    items: list[Parsed], taken: set[tuple[str, int]], most: int
) -> None:
    covered = {(name, day(number)) for name, number in taken}
    runs = due(items, config=make_config(most), taken=covered, requested={"b", "c"})
    wanted = {
        item.job.key
        for item in items
        if START <= item.job.key.date < NOW.date()
        and (item.job.key.source, item.job.key.date) not in covered
    }
    made = [job.key for run in runs for job in run.jobs]
    assert sorted(map(str, made)) == sorted(map(str, wanted))
    tags = {item.job.key: item.requests[0].backfill_id for item in items}
    for run in runs:
        assert 1 <= len(run.jobs) <= most
        assert run.last - run.first == (len(run.jobs) - 1) * ONE_DAY
        for job in run.jobs:
            assert job.key.source == run.source.name
            assert job.priority is run.priority
            tag = tags[job.key]
            assert run.backfill_id == (tag if tag in ("b", "c") else None)
    assert [run.priority for run in runs] == sorted(run.priority for run in runs)
    assert len({run.run_key for run in runs}) == len(runs)


UNENDED = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 2 * SOURCE_RUNS))


@given(some_parsed(), UNENDED)
def test_a_tick_asks_for_no_more_than_its_bounds(
    items: list[Parsed], unended: dict[str, int]
) -> None:
    runs = due(items, config=make_config(1))
    chosen = within_bounds(runs, unended=unended)
    assert len(chosen) <= RUNS_PER_TICK
    others = [run.source.name for run in chosen if run.priority is not Priority.DAILY]
    assert len(others) <= OTHERS_PER_TICK
    for name in NAMES:
        assert others.count(name) <= max(0, SOURCE_RUNS - unended.get(name, 0))
    daily = [run for run in runs if run.priority is Priority.DAILY]
    assert chosen[: len(daily)] == daily[:RUNS_PER_TICK]


@given(some_parsed())
def test_tick_after_tick_each_date_is_started_once(items: list[Parsed]) -> None:
    taken: set[tuple[str, dt.date]] = set()
    ticks = 0
    while runs := start(due(items, taken=taken)):
        started = [(job.key.source, job.key.date) for run in runs for job in run.jobs]
        assert not taken & set(started)
        taken |= set(started)
        ticks += 1
    assert due(items, taken=taken) == []
    assert ticks <= len(items)
