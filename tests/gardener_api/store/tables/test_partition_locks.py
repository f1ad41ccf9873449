import datetime as dt
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from gardener_api.store.store import JobStore

OpenStore = Callable[..., JobStore]
TABLE, DATE = "tmp_ndt.ndt7", dt.date(2024, 3, 1)


def test_a_partition_is_one_runs_until_that_run_is_over(store: JobStore, now: dt.datetime) -> None:
    first = store.partition_locks.take(TABLE, DATE, run_id="a", now=now)
    assert (first.run_id, first.since) == ("a", now)
    later = now + dt.timedelta(minutes=1)
    assert store.partition_locks.take(TABLE, DATE, run_id="b", now=later) == first
    assert store.partition_locks.take(TABLE, DATE, run_id="a", now=later) == first
    taken = store.partition_locks.take(TABLE, DATE, run_id="b", ended="a", now=later)
    assert (taken.run_id, taken.since) == ("b", later)
    assert store.partition_locks.take(TABLE, DATE, run_id="c", ended="a", now=later) == taken


def test_other_partitions_are_free(store: JobStore, now: dt.datetime) -> None:
    store.partition_locks.take(TABLE, DATE, run_id="a", now=now)
    for table, date in ((TABLE, DATE + dt.timedelta(days=1)), ("tmp_ndt.ndt5", DATE)):
        assert store.partition_locks.take(table, date, run_id="b", now=now).run_id == "b"


def test_of_many_that_come_at_once_one_gets_it(open_store: OpenStore, now: dt.datetime) -> None:
    stores = [open_store() for _ in range(4)]
    stores[0].partition_locks.take(TABLE, DATE, run_id="over", now=now)

    def take(i: int) -> str:
        locks = stores[i % 4].partition_locks
        return locks.take(TABLE, DATE, run_id=f"run{i}", ended="over", now=now).run_id

    with ThreadPoolExecutor(16) as pool:
        holders = set(pool.map(take, range(64)))
    assert len(holders) == 1


def test_d30_who_has_a_partition(store: JobStore, now: dt.datetime) -> None:
    date = dt.date(2024, 3, 1)
    assert store.partition_locks.holder("raw_ndt.ndt7", date) is None
    store.partition_locks.take("raw_ndt.ndt7", date, run_id="a", now=now)
    assert store.partition_locks.holder("raw_ndt.ndt7", date) == "a"
    store.partition_locks.take("raw_ndt.ndt7", date, run_id="b", ended="a", now=now)
    assert store.partition_locks.holder("raw_ndt.ndt7", date) == "b"
    assert store.partition_locks.holder("raw_ndt.ndt7", dt.date(2024, 3, 2)) is None
