import datetime as dt
from collections.abc import Callable

import pytest

from gardener_api.jobs.job import JobKey, JobRequest, JobState, Priority
from gardener_api.jobs.parser_calls import Update
from gardener_api.store.store import JobStore

MakeKey = Callable[..., JobKey]
Wanted = Callable[..., JobRequest]
HOUR = dt.timedelta(hours=1)


def test_the_last_time_that_anybody_asked(
    store: JobStore, wanted: Wanted, make_key: MakeKey, now: dt.datetime
) -> None:
    store.enqueue([wanted(1), wanted(2)], now=now)
    store.enqueue([wanted(2, requester="run:b", run_id="b")], now=now + HOUR)
    store.withdraw("b", by="x", now=now + 2 * HOUR)
    assert store.days.last_asked(make_key(2).date) == {make_key(2): now + HOUR}
    assert store.days.last_asked(make_key(1).date)[make_key(1)] == now
    assert store.days.last_asked(make_key(3).date) == {}


@pytest.mark.parametrize(
    ("by", "counts"),
    [("a person, who cancelled Dagster run a", True), ("an operator's script", False)],
)
def test_d26_a_date_counts_as_asked_for_unless_anything_but_a_person_took_it_back(
    store: JobStore,
    wanted: Wanted,
    make_key: MakeKey,
    now: dt.datetime,
    by: str,
    counts: bool,
) -> None:
    store.enqueue([wanted(1)], now=now)
    store.withdraw("a", by=by, now=now)
    assert store.days.last_asked(make_key(1).date) == ({make_key(1): now} if counts else {})


def test_d26_a_request_that_was_taken_back_counts_if_its_job_went_on(
    store: JobStore, wanted: Wanted, make_key: MakeKey, now: dt.datetime
) -> None:
    store.enqueue([wanted(1)], now=now)
    store.lease(1, now=now)
    store.withdraw("a", by="x", now=now)
    assert store.days.last_asked(make_key(1).date) == {make_key(1): now}


def test_a_source_is_daily_from_its_first_daily_job(
    store: JobStore, wanted: Wanted, make_key: MakeKey, now: dt.datetime
) -> None:
    store.enqueue([wanted(1), wanted(3, daily=True), wanted(2, daily=True)], now=now)
    assert store.days.first_daily() == {"ndt/ndt7": make_key(2).date}


def test_the_newest_job_of_each_key(
    store: JobStore, wanted: Wanted, make_key: MakeKey, now: dt.datetime
) -> None:
    store.enqueue([wanted(1), wanted(2)], now=now)
    store.withdraw("a", by="x", now=now)
    [again] = store.enqueue([wanted(1)], now=now)
    found = store.days.latest([make_key(day) for day in (1, 2, 3)])
    assert found[make_key(1)] == again
    assert found[make_key(2)].state is JobState.WITHDRAWN
    assert make_key(3) not in found


def test_how_many_wait_for_their_tables(store: JobStore, wanted: Wanted, now: dt.datetime) -> None:
    store.enqueue([wanted(1, priority=Priority.HISTORICAL), wanted(2)], now=now)
    for job in store.lease(2, now=now):
        store.apply([Update(job.id, JobState.POST_PROCESSING, "")], now=now)
    assert store.days.waiting_for_tables(Priority.HISTORICAL) == 1
    assert store.days.waiting_for_tables(Priority.DAILY) == 0


def test_how_many_jobs_some_requesters_asked_for(
    store: JobStore, wanted: Wanted, now: dt.datetime
) -> None:
    store.enqueue([wanted(1), wanted(2), wanted(2, requester="run:b")], now=now)
    assert store.days.asked_by(["run:a", "run:b"]) == 3
    assert store.days.asked_by(["run:c"]) == 0
    assert store.days.asked_by([]) == 0


def test_the_rows_of_the_partitions_that_were_written(
    store: JobStore, make_key: MakeKey, now: dt.datetime
) -> None:
    for day in (1, 2, 3):
        store.tables.record_partition(
            "raw_ndt.ndt7", make_key(day).date, rows=10 * day, run_id="t", now=now
        )
    rows = store.days.rows("raw_ndt.ndt7", make_key(2).date, make_key(5).date)
    assert rows == {make_key(2).date: 20, make_key(3).date: 30}
    assert store.days.rows("", make_key(1).date, make_key(5).date) == {}
