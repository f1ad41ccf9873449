import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gardener_api.jobs.job import OPEN, JobState
from gardener_api.store.queries.plan_queries import DateRecord
from gardener_dagster.planning.backfills import (
    BackfillPlan,
    OlderThan,
    Selection,
    Wanted,
    plan_backfill,
)

TODAY = dt.date(2024, 3, 10)
NOON = dt.datetime(2024, 3, 2, 12, tzinfo=dt.UTC)
DATE = dt.date(2024, 3, 1)
TABLES = ("raw_ndt.ndt7", "ndt.ndt7")
NDT7 = Wanted(name="ndt/ndt7", assets=(("parsed", "ndt", "ndt7"),), tables=TABLES)
SOME_DATES = st.lists(st.dates(dt.date(2024, 2, 20), dt.date(2024, 3, 20)))
RECORDS = st.dictionaries(
    st.dates(dt.date(2024, 2, 20), dt.date(2024, 3, 20)),
    st.builds(
        DateRecord,
        state=st.sampled_from([None, *(set(JobState) - {JobState.WITHDRAWN})]),
        parsed=st.sampled_from([None, NOON]),
        made=st.sampled_from([{}, {TABLES[0]: NOON}, dict.fromkeys(TABLES, NOON)]),
        versions=st.sampled_from([(), ("v1.2",), ("v1.10", "v2"), ("none",)]),
    ),
)
SELECTIONS = st.builds(
    Selection,
    missing=st.booleans(),
    failed=st.booleans(),
    older_than=st.sampled_from([None, OlderThan.parse("v1.9"), OlderThan.parse("2024-03-02")]),
)
MADE = DateRecord(
    state=JobState.COMPLETE, parsed=NOON, made=dict.fromkeys(TABLES, NOON), versions=("v2.9.1",)
)


def plan_of(
    dates: list[dt.date],
    start_date: dt.date,
    selection: Selection | None = None,
    records: dict[dt.date, DateRecord] | None = None,
) -> BackfillPlan:
    return plan_backfill(
        [NDT7], dates, start_date=start_date, today=TODAY, selection=selection,
        records={NDT7.name: records or {}},
    )  # fmt: skip


@given(SOME_DATES, st.dates(dt.date(2024, 2, 25), dt.date(2024, 3, 15)), SELECTIONS, RECORDS)
def test_each_date_is_made_skipped_or_left_out_for_one_reason(
    dates: list[dt.date],
    start_date: dt.date,
    selection: Selection,
    records: dict[dt.date, DateRecord],
) -> None:
    plan = plan_of(dates, start_date, selection, records)
    [source] = plan.sources
    skipped = [date for some in source.skipped.values() for date in some]
    told = [*source.dates, *skipped, *(date for some in plan.left_out.values() for date in some)]
    assert sorted(told) == sorted(set(dates))
    assert all(start_date <= date < TODAY for date in source.dates)
    assert list(source.dates) == sorted(source.dates)
    assert selection or not skipped


@given(SOME_DATES, SELECTIONS.filter(bool), RECORDS)
def test_a_selection_takes_nothing_that_is_on_its_way(
    dates: list[dt.date], selection: Selection, records: dict[dt.date, DateRecord]
) -> None:
    [source] = plan_of(dates, dt.date(2024, 2, 20), selection, records).sources
    assert not [date for date in source.dates if date in records and records[date].state in OPEN]
    assert source.pending == ()


def test_without_a_selection_unfinished_jobs_are_attached_to() -> None:
    [source] = plan_of([DATE], DATE, None, {DATE: DateRecord(state=JobState.QUEUED)}).sources
    assert (source.dates, source.pending) == ((DATE,), (DATE,))


@pytest.mark.parametrize(
    ("created", "reason"),
    [
        (None, "on its way already"),
        (NOON - dt.timedelta(hours=1), "on its way already"),
        (NOON + dt.timedelta(hours=1), ""),
    ],
)
def test_what_an_unfinished_backfill_has_not_asked_for_yet_is_on_its_way(
    created: dt.datetime | None, reason: str
) -> None:
    record = DateRecord(state=JobState.FAILED if created else None, created=created)
    assert Selection(missing=True).reason_to_skip(record, TABLES, NOON) == reason


def test_a_start_date_that_is_still_to_come() -> None:
    later = dt.date(2024, 4, 1)
    plan = plan_of([TODAY, later], later)
    assert plan.sources[0].dates == ()
    assert [len(dates) for dates in plan.left_out.values()] == [1, 1]


def test_all_assets_are_named_below_their_dates() -> None:
    tables = Wanted(
        name="ndt/ndt7", assets=(("tmp_ndt", "ndt7"), ("raw_ndt", "ndt7")), tables=TABLES
    )
    other = Wanted(name="ndt/pcap", assets=(("tmp_ndt", "pcap"),), tables=("raw_ndt.pcap",))
    second = DATE + dt.timedelta(days=1)
    plan = plan_backfill(
        [tables, other], [DATE, second], start_date=DATE, today=TODAY,
        selection=Selection(missing=True),
        records={tables.name: {DATE: DateRecord(made={TABLES[0]: NOON})},
                 other.name: {DATE: MADE, second: DateRecord(state=JobState.LOADING)}},
    )  # fmt: skip
    assert list(plan.lines()) == [
        "Will be made: 2024-03-01 to 2024-03-02 (2 dates) of",
        "  tmp_ndt/ndt7",
        "  raw_ndt/ndt7",
        "Skipped: 2024-03-01 (1 date) of ndt/pcap: made already",
        "Skipped: 2024-03-02 (1 date) of ndt/pcap: on its way already",
    ]


@pytest.mark.parametrize(
    ("record", "selection", "is_wanted"),
    [
        (DateRecord(), Selection(missing=True), True),
        (DateRecord(state=JobState.FAILED), Selection(missing=True), True),
        (DateRecord(made={TABLES[0]: NOON}), Selection(missing=True), True),
        (MADE, Selection(missing=True), False),
        (DateRecord(state=JobState.COMPLETE), Selection(missing=True), False),
        (DateRecord(state=JobState.FAILED, made=MADE.made), Selection(missing=True), False),
        (DateRecord(state=JobState.FAILED, made=MADE.made), Selection(failed=True), True),
        (DateRecord(), Selection(failed=True), False),
        (MADE, Selection(older_than=OlderThan.parse("v2.10")), True),
        (MADE, Selection(older_than=OlderThan.parse("2.9.1")), False),
        (MADE, Selection(older_than=OlderThan.parse("2024-03-03")), True),
        (MADE, Selection(older_than=OlderThan.parse("2024-03-02")), False),
        (DateRecord(), Selection(older_than=OlderThan.parse("v3")), False),
        (DateRecord(made=MADE.made), Selection(older_than=OlderThan.parse("v3")), False),
    ],
)
def test_what_is_wanted(record: DateRecord, selection: Selection, is_wanted: bool) -> None:
    assert (selection.reason_to_skip(record, TABLES) == "") is is_wanted


def test_an_unknown_parser_version_is_told() -> None:
    wanted = Selection(older_than=OlderThan.parse("v3"))
    reason = wanted.reason_to_skip(DateRecord(made=MADE.made, versions=("none",)), TABLES)
    assert reason == "made already; whether by a version before v3 is not known"


@pytest.mark.parametrize("text", ["yesterday", "", "v", "1.2-rc1", "2024-13-01"])
def test_what_is_neither_version_nor_date_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a version like v2"):
        OlderThan.parse(text)
