import datetime as dt

import pytest

from gardener_api.jobs.job import JobState
from gardener_api.store.queries.plan_queries import Cost, DateRecord
from gardener_dagster.planning.backfill_costs import Capacity, Estimate, estimate
from gardener_dagster.planning.backfills import Wanted, plan_backfill

FIRST = dt.date(2024, 1, 1)
NDT7 = Wanted(name="ndt/ndt7", assets=(("parsed", "ndt", "ndt7"),), tables=("raw_ndt.ndt7",))
ONE = Cost(archives=10, archive_bytes=2_500_000_000, parser_seconds=3600, rows=1000,
           bytes_loaded=5_000_000, load_seconds=30, bytes_processed=2_000_000,
           bytes_billed=10_000_000, slot_seconds=1800)  # fmt: skip


def days(*numbers: int) -> list[dt.date]:
    return [FIRST + dt.timedelta(days=number) for number in numbers]


def estimated(dates: list[dt.date], records: dict[dt.date, DateRecord]) -> Estimate:
    of = {NDT7.name: records}
    plan = plan_backfill([NDT7], dates, start_date=FIRST, today=dt.date(2025, 1, 1), records=of)
    return estimate(plan, of, parses=True)


def test_a_date_costs_what_it_did_the_last_time_or_what_its_nearest_neighbour_did() -> None:
    small, large = Cost(archives=1), Cost(archives=100)
    records = {
        date: DateRecord(cost=cost) for date, cost in zip(days(0, 10), (small, large), strict=True)
    }
    found = estimated(days(0, 4, 5, 6, 10), records)
    assert found.total.archives == 1 + 1 + 1 + 100 + 100
    assert (found.jobs, found.from_neighbours, found.unknown) == (5, 3, 0)


def test_a_date_far_from_all_others_is_not_known() -> None:
    found = estimated(days(31, 32), {FIRST: DateRecord(cost=ONE), days(40)[0]: DateRecord()})
    assert (found.total, found.from_neighbours, found.unknown) == (ONE, 1, 1)


def test_the_time_is_that_of_the_parsers_there_are() -> None:
    records = {FIRST: DateRecord(state=JobState.QUEUED, cost=ONE)}
    found = estimated(days(0, 1), records)
    assert found.pending == 1
    # Two jobs of an hour each, behind two that wait: of three, one is the backfill's own.
    time = found.time_to_finish(Capacity(parsers=2, queued=3))
    assert time == dt.timedelta(hours=2)


@pytest.mark.parametrize(
    ("records", "parsers", "why"),
    [
        ({}, 1, "none of these dates, nor a date near them, was ever parsed"),
        ({FIRST: DateRecord(cost=ONE)}, 0, "no parser has had a job in the last day"),
    ],
)
def test_a_time_that_is_not_known_says_why(
    records: dict[dt.date, DateRecord], parsers: int, why: str
) -> None:
    lines = list(estimated(days(0), records).lines(Capacity(parsers=parsers, queued=0)))
    assert lines[-1] == f"  time to finish  not known: {why}"


def test_it_is_told_in_a_few_lines() -> None:
    found = estimated(days(0, 1, 99), {FIRST: DateRecord(state=JobState.PARSING, cost=ONE)})
    assert list(found.lines(Capacity(parsers=1, queued=5))) == [
        "Expected, from the last time that each date was made"
        " (1 of a neighbouring date, 1 not known and left out):",
        "  jobs            3, 1 of them on their way already",
        "  archives        20, 5.0 GB",
        "  parser hours    2.0",
        "  rows            2,000",
        "  load            10.0 MB in 1 min",
        "  queries         4.0 MB processed, 20.0 MB billed",
        "  slot hours      1.0",
        "  time to finish  about 7 h with 1 parser, behind 4 jobs that wait already",
    ]


def test_archives_whose_size_was_not_kept_are_named() -> None:
    old = Cost(archives=7, archives_unsized=7)
    found = estimated(days(0, 1), {FIRST: DateRecord(cost=ONE), days(1)[0]: DateRecord(cost=old)})
    lines = list(found.lines(Capacity(parsers=1, queued=0)))
    assert (
        "  archives        17, 2.5 GB in 10 of them; the size of the others is not known" in lines
    )
    only_old = estimated(days(0), {FIRST: DateRecord(cost=old)})
    assert "  archives        7" in list(only_old.lines(Capacity(parsers=1, queued=0)))
