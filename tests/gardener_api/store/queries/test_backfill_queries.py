import datetime as dt
from collections.abc import Callable

from gardener_api.jobs.backfill_progress import BackfillProgress
from gardener_api.jobs.job import JobKey, JobRequest, JobState
from gardener_api.store.store import JobStore
from gardener_api.store.tables.tables_backfills import TablesTarget

MakeKey = Callable[..., JobKey]
Wanted = Callable[..., JobRequest]
HOUR = dt.timedelta(hours=1)


def test_the_backfills_that_have_unfinished_jobs(
    store: JobStore, wanted: Wanted, make_key: MakeKey, now: dt.datetime
) -> None:
    assert store.backfills.unfinished(now=now) == []

    def ask(backfill: str, *days: int, at: dt.datetime) -> None:
        requester = f"backfill/{backfill}"
        asks = [wanted(d, requester, backfill_id=backfill, archives=0) for d in days]
        store.enqueue(asks, now=at)

    ask("over", 20, at=now)
    ask("old", 1, 2, 3, 4, at=now)
    ask("new", 4, 5, at=now + HOUR)
    store.enqueue([wanted(30, "run/x")], now=now)
    for day in (1, 2, 20):
        store.stage(make_key(day), JobState.LOADING, run_id="t", now=now)
    store.stage(make_key(1), JobState.COMPLETE, run_id="t", now=now)
    store.stage(make_key(20), JobState.COMPLETE, run_id="t", now=now)
    store.fail_stage(make_key(2), "no", run_id="t", now=now + HOUR)
    new, old = store.backfills.unfinished(now=now + HOUR * 6.5)
    assert old == BackfillProgress(
        backfill_id="old", sources=["ndt/ndt7"], first=dt.date(2024, 3, 1),
        last=dt.date(2024, 3, 4), asked=now, jobs=4, complete=1, failed=1, ended_lately=1,
    )  # fmt: skip
    assert (new.backfill_id, new.jobs, new.left) == ("new", 2, 2)


def test_what_was_taken_back_does_not_count(
    store: JobStore, wanted: Wanted, now: dt.datetime
) -> None:
    asks = [
        wanted(day, "backfill/b", run_id=run_id, backfill_id="b")
        for day, run_id in ((1, "one"), (2, "two"))
    ]
    store.enqueue(asks, now=now)
    store.withdraw("one", by="a person", now=now)
    [progress] = store.backfills.unfinished(now=now)
    assert (progress.jobs, progress.first) == (1, dt.date(2024, 3, 2))


def test_the_end_follows_from_what_ended_lately(now: dt.datetime) -> None:
    progress = BackfillProgress(
        backfill_id="b", sources=[], first=now.date(), last=now.date(), asked=now,
        jobs=100, complete=30, failed=10, ended_lately=12,
    )  # fmt: skip
    assert progress.per_hour(now + HOUR) == 12
    assert progress.per_hour(now + 24 * HOUR) == 2
    assert progress.expected_end(now + HOUR) == now + 6 * HOUR
    assert progress.expected_end(now) is None


def test_backfills_of_tables_alone(
    store: JobStore, wanted: Wanted, make_key: MakeKey, now: dt.datetime
) -> None:
    def make(day: int, by: str, table: str = "raw_ndt.ndt7", at: dt.datetime = now) -> None:
        date = make_key(day).date
        store.tables.record_partition(table, date, rows=1, run_id="t", requester=by, now=at)

    dates = [make_key(day).date for day in (1, 2, 3, 4)]
    ndt7 = TablesTarget(source="ndt/ndt7", table="raw_ndt.ndt7", dates=dates)
    pcap = TablesTarget(source="ndt/pcap", table="raw_ndt.pcap", dates=dates[:1])
    make(1, "backfill/t", at=now - 7 * HOUR)  # not lately
    make(2, "backfill/t")
    make(3, "backfill/other")
    make(1, "backfill/t", "tmp_ndt.pcap")
    store.enqueue([wanted(day, archives=0) for day in (2, 4)], now=now)
    for day in (2, 4):
        store.stage(make_key(day), JobState.LOADING, run_id="t", now=now)
    store.fail_stage(make_key(2), "no", run_id="t", now=now - 8 * HOUR)  # of an earlier run
    store.fail_stage(make_key(4), "no", run_id="t", now=now)
    store.tables_backfills.note("t", [ndt7, pcap], began=now - 7 * HOUR)
    [progress] = store.backfills.unfinished(now=now)
    assert progress == BackfillProgress(
        backfill_id="t", sources=["ndt/ndt7", "ndt/pcap"], first=dates[0], last=dates[-1],
        asked=now - 7 * HOUR, jobs=5, complete=2, failed=1, ended_lately=2, tables_only=True,
    )  # fmt: skip
    assert store.tables_backfills.known() == {"t"}
    store.tables_backfills.forget({"t"})
    assert store.backfills.unfinished(now=now) == []
