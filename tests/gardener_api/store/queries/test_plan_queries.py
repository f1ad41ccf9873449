import datetime as dt
from collections.abc import Callable
from typing import Any

from gardener_api.jobs.job import JobKey, JobRequest, JobState, Priority
from gardener_api.jobs.parser_calls import Update
from gardener_api.store.publishing.changes import PartitionChange
from gardener_api.store.queries.plan_queries import Cost, DateRecord
from gardener_api.store.store import JobStore

MakeKey = Callable[..., JobKey]
Wanted = Callable[..., JobRequest]
HOUR = dt.timedelta(hours=1)
RAW, JOINED = "raw_ndt.ndt7", "ndt.ndt7"


def records(store: JobStore, first: int = 1, last: int = 31) -> dict[int, DateRecord]:
    """By the day of March."""
    found = store.plans.records(
        "archive-mlab-oti", "ndt/ndt7", (RAW, JOINED),
        dt.date(2024, 3, first), dt.date(2024, 3, last),
    )  # fmt: skip
    return {date.day: record for date, record in found.items()}


def parse(store: JobStore, ask: JobRequest, now: dt.datetime) -> None:
    """Ask for a job, and have it parsed in an hour."""
    store.enqueue([ask], now=now)
    [job] = store.lease(1, parser="p", now=now)
    store.apply([Update(id=job.id, state=JobState.POST_PROCESSING)], now=now + HOUR)


def record_operation(
    store: JobStore, key: JobKey, operation: str, now: dt.datetime, **of: Any
) -> None:
    values: dict[str, Any] = {
        "rows": 5, "bytes": 100, "slot_seconds": 2.0, "bytes_billed": 1000, "seconds": 3.0,
    }  # fmt: skip
    store.tables.record_operation(
        key=key, table="tmp_ndt.ndt7", operation=operation, run_id="r", bq_job_ids=["b"], now=now,
        **values | of,
    )  # fmt: skip


def test_a_date_has_its_state_its_tables_and_what_the_last_time_cost(
    store: JobStore, wanted: Wanted, make_key: MakeKey, now: dt.datetime
) -> None:
    key = make_key(1)
    parse(store, wanted(1, archive_bytes=5_000_000_000), now)
    record_operation(store, key, "load", now, bytes=7777)
    record_operation(store, key, "load", now)
    record_operation(store, key, "dedup", now)
    record_operation(store, key, "copy", now, slot_seconds=0.0, bytes=0, bytes_billed=0)
    record_operation(store, make_key(1, "pcap"), "load", now, bytes=7777)
    store.tables.record_partition(RAW, key.date, rows=12, run_id="r", now=now)
    store.tables.record_partition("tmp_ndt.ndt7", key.date, rows=99, run_id="r", now=now)
    assert records(store) == {
        1: DateRecord(
            state=JobState.POST_PROCESSING,
            created=now,
            parsed=now + HOUR,
            made={RAW: now},
            cost=Cost(
                archives=3, archive_bytes=5_000_000_000, parser_seconds=3600, rows=12,
                bytes_loaded=100, load_seconds=3.0, bytes_processed=100, bytes_billed=1000,
                slot_seconds=4.0,
            ),
        )
    }  # fmt: skip


def test_the_state_is_the_newest_jobs_that_was_not_withdrawn(
    store: JobStore, wanted: Wanted, make_key: MakeKey, now: dt.datetime
) -> None:
    parse(store, wanted(1), now)
    store.stage(make_key(1), JobState.LOADING, run_id="t", now=now + HOUR)
    store.fail_stage(make_key(1), "no", run_id="t", now=now + HOUR)
    store.enqueue([wanted(1, "run:b"), wanted(2, "run:b")], now=now + HOUR)
    store.withdraw("b", by="a person", now=now + HOUR)
    found = records(store)
    assert (found[1].state, found[1].parsed) == (JobState.FAILED, now + HOUR)
    assert found[2] == DateRecord()


def test_dates_outside_are_left_out(store: JobStore, wanted: Wanted, now: dt.datetime) -> None:
    store.enqueue([wanted(day) for day in range(1, 6)], now=now)
    assert sorted(records(store, 2, 4)) == [2, 3, 4]


def test_the_parser_versions_are_those_of_the_newest_version(
    store: JobStore, make_key: MakeKey, now: dt.datetime
) -> None:
    found: dict[int, list[tuple[str, ...]]] = {
        1: [("v2.6.1",), ("v2.6.1", "v2.7.0", "none")],
        2: [("v2.6.1",)],
        3: [()],
    }
    for day, of_versions in found.items():
        date = make_key(day).date
        store.tables.record_partition(RAW, date, rows=12, run_id="r", now=now)
        for version, parsers in enumerate(of_versions, start=1):
            change = PartitionChange(
                table=RAW, date=date, version=version, run_id="r", made=now, rows=12,
                parser_versions=parsers,
            )  # fmt: skip
            store.changes.record(change)
    versions = {day: record.versions for day, record in records(store).items()}
    assert versions == {1: ("v2.6.1", "v2.7.0", "none"), 2: ("v2.6.1",), 3: ()}


def test_jobs_that_come_before_a_backfills_are_counted(
    store: JobStore, wanted: Wanted, now: dt.datetime
) -> None:
    for day, priority in enumerate(Priority, start=1):
        store.enqueue([wanted(day, priority=priority)], now=now)
    assert store.plans.queued(Priority.BACKFILL) == 2
