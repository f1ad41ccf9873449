import datetime as dt
from collections.abc import Callable

import pytest

from gardener_api.jobs.job import JobKey
from gardener_api.store.store import JobStore
from gardener_api.store.tables.table_versions import DueJoin, JoinInputs, TableLog

MakeKey = Callable[..., JobKey]

RAW, ANNOTATIONS, JOINED = "raw_ndt.ndt7", "raw_ndt.annotation2", "ndt.ndt7"
DAY = dt.date(2024, 3, 2)
BEFORE = dt.date(2024, 3, 1)


@pytest.fixture
def log(store: JobStore) -> TableLog:
    return store.tables


@pytest.fixture
def made(log: TableLog, now: dt.datetime) -> Callable[..., int]:
    def make(table: str, date: dt.date = DAY, rows: int = 7) -> int:
        return log.record_partition(table, date, rows=rows, run_id="t", now=now)

    return make


def due(log: TableLog, newest: dt.date = dt.date(2023, 1, 1)) -> list[DueJoin]:
    return log.joins_due(RAW, ANNOTATIONS, JOINED, newest=newest)


def test_versions_go_up(log: TableLog, made: Callable[..., int], now: dt.datetime) -> None:
    assert log.partition(RAW, DAY) is None
    assert [made(RAW, rows=5), made(RAW, rows=6), made(RAW, BEFORE), made(ANNOTATIONS)] == [
        1, 2, 1, 1,
    ]  # fmt: skip
    record = log.partition(RAW, DAY)
    assert record is not None
    assert (record.version, record.rows, record.run_id, record.made) == (2, 6, "t", now)
    assert (record.inputs, record.attempted) == (None, None)
    assert log.join_inputs(RAW, ANNOTATIONS, DAY) == JoinInputs(2, 1, 0)
    made(ANNOTATIONS, BEFORE)
    assert log.join_inputs(RAW, ANNOTATIONS, DAY) == JoinInputs(2, 1, 1)


def test_a_join_is_due_once_for_the_same_inputs(
    log: TableLog, made: Callable[..., int], now: dt.datetime
) -> None:
    assert due(log) == []
    made(ANNOTATIONS)
    assert due(log) == [], "there is nothing to join to yet"
    made(RAW)
    inputs = JoinInputs(raw=1, annotations=1, annotations_before=0)
    assert due(log) == [DueJoin(date=DAY, inputs=inputs, replaces=0)]
    log.begin_join(JOINED, DAY, inputs, run_id="j", now=now)
    assert due(log) == [], "it was tried"
    assert log.partition(JOINED, DAY) is None, "tried is not made"
    assert log.record_join(JOINED, DAY, inputs, rows=7, run_id="j", now=now) == 1
    assert due(log) == []
    record = log.partition(JOINED, DAY)
    assert record is not None
    assert (record.inputs, record.attempted) == (inputs, inputs)


@pytest.mark.parametrize(("table", "date"), [(RAW, DAY), (ANNOTATIONS, DAY), (ANNOTATIONS, BEFORE)])
def test_whatever_it_reads_makes_it_due_again(
    log: TableLog, made: Callable[..., int], now: dt.datetime, table: str, date: dt.date
) -> None:
    made(ANNOTATIONS)
    made(RAW)
    inputs = log.join_inputs(RAW, ANNOTATIONS, DAY)
    log.record_join(JOINED, DAY, inputs, rows=7, run_id="j", now=now)
    assert due(log) == []
    made(table, date)
    newer = log.join_inputs(RAW, ANNOTATIONS, DAY)
    assert newer != inputs
    assert due(log) == [DueJoin(date=DAY, inputs=newer, replaces=1)]


def test_rows_that_only_bigquery_knows_are_joined_to_new_annotations(
    log: TableLog, made: Callable[..., int], now: dt.datetime
) -> None:
    made(ANNOTATIONS, BEFORE)
    of_before = DueJoin(date=BEFORE, inputs=JoinInputs(0, 1, 0), replaces=0)
    of_day = DueJoin(date=DAY, inputs=JoinInputs(0, 0, 1), replaces=0)
    assert due(log, BEFORE - dt.timedelta(days=1)) == []
    assert due(log, BEFORE) == [of_before]
    assert due(log, DAY) == [of_before, of_day]
    log.begin_join(JOINED, BEFORE, of_before.inputs, run_id="j", now=now)
    log.record_join(JOINED, DAY, of_day.inputs, rows=7, run_id="j", now=now)
    assert due(log, DAY) == []
    made(ANNOTATIONS, BEFORE)
    assert due(log, DAY) == [
        DueJoin(date=BEFORE, inputs=JoinInputs(0, 2, 0), replaces=0),
        DueJoin(date=DAY, inputs=JoinInputs(0, 0, 2), replaces=1),
    ]


def test_the_annotations_of_the_day_after_are_not_read(
    log: TableLog, made: Callable[..., int], now: dt.datetime
) -> None:
    made(RAW)
    inputs = log.join_inputs(RAW, ANNOTATIONS, DAY)
    log.record_join(JOINED, DAY, inputs, rows=7, run_id="j", now=now)
    made(ANNOTATIONS, DAY + dt.timedelta(days=1))
    assert due(log) == []


def test_a_slow_join_of_older_inputs_makes_the_newer_due_again(
    log: TableLog, made: Callable[..., int], now: dt.datetime
) -> None:
    made(RAW)
    old = log.join_inputs(RAW, ANNOTATIONS, DAY)
    made(ANNOTATIONS)
    new = log.join_inputs(RAW, ANNOTATIONS, DAY)
    log.record_join(JOINED, DAY, new, rows=7, run_id="quick", now=now)
    log.record_join(JOINED, DAY, old, rows=7, run_id="slow", now=now)
    assert due(log) == [DueJoin(date=DAY, inputs=new, replaces=2)]


def test_across_months_and_in_order_of_dates(log: TableLog, made: Callable[..., int]) -> None:
    made(RAW, dt.date(2024, 3, 1))
    made(RAW, dt.date(2023, 12, 31))
    made(ANNOTATIONS, dt.date(2024, 2, 29))
    assert due(log) == [
        DueJoin(date=dt.date(2023, 12, 31), inputs=JoinInputs(1, 0, 0), replaces=0),
        DueJoin(date=dt.date(2024, 3, 1), inputs=JoinInputs(1, 0, 1), replaces=0),
    ]


def test_operations(log: TableLog, make_key: MakeKey, now: dt.datetime) -> None:
    for name, ids in (("load", ["a", "b"]), ("delete", [])):
        log.record_operation(
            key=make_key(),
            table="tmp_ndt.ndt7",
            operation=name,
            run_id="t",
            bq_job_ids=ids,
            rows=3,
            bytes=10**12,
            slot_seconds=1.5,
            bytes_billed=0,
            seconds=2.5,
            now=now,
        )
    load, delete = log.operations(make_key())
    assert (load.operation, load.bq_job_ids, load.bytes, load.at) == (
        "load",
        ("a", "b"),
        10**12,
        now,
    )
    assert (delete.operation, delete.bq_job_ids) == ("delete", ())
    assert log.operations(make_key(2)) == []


def test_a_partition_knows_who_asked_for_it_and_from_which_parse_it_is(
    store: JobStore, now: dt.datetime
) -> None:
    date = dt.date(2024, 3, 1)
    store.tables.record_partition("raw_ndt.ndt7", date, rows=3, run_id="r", now=now)
    raw = store.tables.partition("raw_ndt.ndt7", date)
    assert raw is not None
    assert (raw.requester, raw.job) == ("", None)
    store.tables.record_partition(
        "raw_ndt.ndt7", date, rows=3, run_id="s", requester="backfill/b", job=7, now=now
    )
    raw = store.tables.partition("raw_ndt.ndt7", date)
    assert raw is not None
    assert (raw.version, raw.run_id, raw.requester, raw.job) == (2, "s", "backfill/b", 7)
    inputs = store.tables.join_inputs("raw_ndt.ndt7", "raw_ndt.annotation2", date)
    store.tables.record_join(
        "ndt.ndt7", date, inputs, rows=3, run_id="t", requester="run/t", now=now
    )
    joined = store.tables.partition("ndt.ndt7", date)
    assert joined is not None
    assert (joined.requester, joined.job) == ("run/t", None)
