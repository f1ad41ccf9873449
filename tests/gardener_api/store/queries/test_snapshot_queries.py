import datetime as dt
from collections.abc import Callable
from dataclasses import replace

import pytest

from gardener_api.jobs.job import LEASE_EXPIRED, PARSE_ERROR, JobKey, JobRequest, JobState
from gardener_api.jobs.parser_calls import Error, Heartbeat, Update
from gardener_api.jobs.snapshot import FailedCheck, Snapshot, TableRun
from gardener_api.store.queries import snapshot_queries
from gardener_api.store.store import JobStore
from gardener_api.store.tables.check_results import CheckResult

Wanted = Callable[..., JobRequest]
MakeKey = Callable[..., JobKey]
OpenStore = Callable[..., JobStore]
HOUR = dt.timedelta(hours=1)


def snapshot(store: JobStore, now: dt.datetime) -> Snapshot:
    return store.overview.snapshot(store.counts(), now=now)


def days(jobs: object) -> list[int]:
    assert isinstance(jobs, list)
    return sorted(job.date.day for job in jobs)


def test_an_empty_store(store: JobStore, now: dt.datetime) -> None:
    found = snapshot(store, now)
    assert not any((found.failed, found.in_hand, found.in_tables, found.lost, found.recent))
    assert (found.head, found.handed_out, found.begun) == (None, None, None)
    assert store.overview.parsers() == []


def test_where_jobs_are(
    store: JobStore, wanted: Wanted, make_key: MakeKey, now: dt.datetime
) -> None:
    store.enqueue([wanted(day) for day in (1, 2, 3)], now=now)
    store.enqueue([wanted(4, archives=0)], now=now + HOUR)
    [job] = store.lease(1, parser="10.0.0.7", now=now + HOUR)
    store.stage(make_key(4), JobState.LOADING, run_id="t", now=now + HOUR)
    found = snapshot(store, now + 72 * HOUR)
    assert (found.queued, found.begun, found.handed_out) == (2, now, now + HOUR)
    assert found.head is not None
    assert found.head.date == dt.date(2024, 3, 2)
    assert days(found.in_hand) == [1]
    assert days(found.in_tables) == [4]
    assert days(found.recent) == [1, 2, 3, 4]
    [held] = found.in_hand
    assert (held.number, held.parser, held.updated) == (job.number, "10.0.0.7", now + HOUR)


def test_failed_until_there_is_a_newer_job(
    store: JobStore, wanted: Wanted, make_key: MakeKey, now: dt.datetime
) -> None:
    store.enqueue([wanted(1, archives=0)], now=now)
    store.stage(make_key(1), JobState.LOADING, run_id="t", now=now)
    store.fail_stage(make_key(1), "no such field", run_id="t", now=now)
    [failed] = snapshot(store, now).failed
    assert (failed.error, failed.failed_in) == ("no such field", JobState.LOADING)

    store.enqueue([wanted(1, requester="run:b")], now=now)
    found = snapshot(store, now)
    assert found.failed == []
    assert [job.state for job in found.recent] == [JobState.QUEUED]

    store.withdraw("b", by="x", now=now)
    found = snapshot(store, now)
    assert [job.number for job in found.failed] == [failed.number], "a request that was taken back"
    assert [job.state for job in found.recent] == [JobState.FAILED]


def test_complete_however_old(
    store: JobStore, wanted: Wanted, make_key: MakeKey, now: dt.datetime
) -> None:
    store.enqueue([wanted(1, archives=0)], now=now)
    store.stage(make_key(1), JobState.LOADING, run_id="t", now=now)
    store.stage(make_key(1), JobState.COMPLETE, run_id="t", now=now)
    store.enqueue([wanted(1, requester="run:b")], now=now)
    found = snapshot(store, now)
    assert [job.state for job in found.recent] == [JobState.QUEUED]
    assert found.complete == {("ndt/ndt7", dt.date(2024, 3, 1))}


def test_only_the_days_of_the_grid(store: JobStore, wanted: Wanted, now: dt.datetime) -> None:
    store.enqueue([wanted(day) for day in (-29, -28, 1, 2)], now=now)
    dates = [str(job.date) for job in snapshot(store, now).recent]
    assert dates == ["2024-03-01", "2024-02-01"]


def test_attempts_that_were_lost(open_store: OpenStore, wanted: Wanted, now: dt.datetime) -> None:
    store = open_store(lease=HOUR)
    store.enqueue([wanted(1), wanted(2)], now=now)
    first, second = store.lease(2, parser="10.0.0.7", now=now)
    store.apply([Error(second.id, "no disk")], now=now)
    store.expire(now=now + 2 * HOUR)
    lost = snapshot(store, now + 3 * HOUR).lost
    assert [(a.number, a.name, a.at) for a in lost] == [
        (first.number, LEASE_EXPIRED, now + 2 * HOUR),
        (second.number, PARSE_ERROR, now),
    ]
    assert lost[1].detail == "no disk"
    assert [a.name for a in snapshot(store, now + 25 * HOUR).lost] == [LEASE_EXPIRED]


def test_lists_are_bounded(
    store: JobStore, wanted: Wanted, now: dt.datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_queries, "MOST", 2)
    store.enqueue([wanted(day, archives=0) for day in (1, 2, 3)], now=now)
    found = snapshot(store, now)
    assert (len(found.in_tables), found.most) == (2, 2)


def test_parsers(store: JobStore, wanted: Wanted, now: dt.datetime) -> None:
    store.enqueue([wanted(day) for day in range(1, 6)], now=now)
    one, two = store.lease(2, parser="10.0.0.1", now=now)
    [three] = store.lease(1, parser="10.0.0.2", now=now + HOUR)
    store.apply([Update(one.id, "postProcessing")], now=now + HOUR)
    store.apply([Update(three.id, "postProcessing")], now=now + 3 * HOUR)

    def seen() -> list[tuple[str, int, dt.datetime]]:
        return [(p.address, p.held, p.called) for p in store.overview.parsers()]

    two_seen, one_seen = ("10.0.0.2", 0, now + 3 * HOUR), ("10.0.0.1", 1, now + HOUR)
    assert seen() == [two_seen, one_seen], "of a finished job"
    store.apply([Heartbeat(two.id)], now=now + 4 * HOUR)
    assert seen() == [("10.0.0.1", 1, now + 4 * HOUR), two_seen], "of a job that it holds"


def test_a_parser_that_holds_a_job_for_long_is_seen(
    store: JobStore, wanted: Wanted, now: dt.datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_queries, "PARSER_CHANGES", 1)
    store.enqueue([wanted(1)], now=now)
    store.lease(1, parser="10.0.0.1", now=now)
    store.enqueue([wanted(2)], now=now + HOUR)
    assert [p.address for p in store.overview.parsers()] == ["10.0.0.1"]


def test_generations(store: JobStore, wanted: Wanted, make_key: MakeKey, now: dt.datetime) -> None:
    store.enqueue([wanted(1)], now=now)
    store.withdraw("a", by="x", now=now)
    store.enqueue([wanted(1, requester="run:b"), wanted(2)], now=now + HOUR)
    found = store.overview.generations(make_key(1))
    assert [(g.generation, g.state, g.created) for g in found] == [
        (2, JobState.QUEUED, now + HOUR),
        (1, JobState.WITHDRAWN, now),
    ]


def test_d35_damaged_archives_that_a_parser_has_named(
    store: JobStore, wanted: Wanted, make_key: MakeKey, now: dt.datetime
) -> None:
    store.enqueue([wanted(day) for day in (1, 2)], now=now)
    for detail in ("damaged archives: 1 of 2: a.tgz (it is empty)", "3 corrupt tests left out"):
        [job] = store.lease(1, parser="p", now=now)
        store.apply([Update(job.id, "parsing"), Update(job.id, "postProcessing", detail)], now=now)
    store.stage(make_key(1), JobState.LOADING, run_id="t", now=now)  # it has a detail of its own
    [damaged] = snapshot(store, now + HOUR).damaged
    assert (damaged.date.day, damaged.at, damaged.source) == (1, now, "ndt/ndt7")
    assert damaged.detail.startswith("damaged archives: 1 of 2: a.tgz")
    assert snapshot(store, now + 25 * HOUR).damaged == []
    store.fail_stage(make_key(1), "no such field", run_id="t", now=now)
    store.enqueue([wanted(1)], now=now)
    assert snapshot(store, now + HOUR).damaged == [], "it is parsed again"


def test_checks_that_have_not_passed(
    store: JobStore, wanted: Wanted, make_key: MakeKey, now: dt.datetime
) -> None:
    [job] = store.enqueue([wanted(1)], now=now)
    failing = CheckResult(
        table="raw_ndt.ndt7",
        name="rows_of_week",
        passed=False,
        severity="warn",
        description="3 rows, 114 a week ago",
    )
    passed = replace(failing, name="unique_keys", passed=True)
    store.checks.record(make_key(1), [failing, passed], run_id="r", now=now)
    store.checks.record(make_key(2), [failing], run_id="r", now=now)  # it never had a job
    store.checks.record(make_key(1 - 60), [failing], run_id="r", now=now)  # before the grid
    [check] = snapshot(store, now).failed_checks
    assert check == FailedCheck(
        number=job.number,
        experiment="ndt",
        datatype="ndt7",
        date=dt.date(2024, 3, 1),
        table="raw_ndt.ndt7",
        name="rows_of_week",
        severity="warn",
        description="3 rows, 114 a week ago",
    )
    store.checks.record(make_key(1), [replace(failing, passed=True)], run_id="s", now=now)
    assert snapshot(store, now).failed_checks == []


def test_how_far_the_runs_of_the_tables_are(
    store: JobStore, wanted: Wanted, make_key: MakeKey, now: dt.datetime
) -> None:
    store.enqueue([wanted(day, archives=0) for day in range(1, 7)], now=now)
    assert store.overview.table_runs() == []
    for day in (1, 2, 3, 4):
        store.stage(make_key(day), JobState.LOADING, run_id="r", now=now)
    store.stage(make_key(1), JobState.COMPLETE, run_id="r", now=now + HOUR)
    store.fail_stage(make_key(2), "no", run_id="r", now=now)
    store.stage(make_key(5), JobState.LOADING, run_id="s", now=now)
    store.stage(make_key(6), JobState.LOADING, run_id="over", now=now)
    store.stage(make_key(6), JobState.COMPLETE, run_id="over", now=now)
    first, second = store.overview.table_runs()
    assert first == TableRun(
        run_id="r",
        states={JobState.LOADING: 2, JobState.COMPLETE: 1, JobState.FAILED: 1},
        sources=["ndt/ndt7"],
        first=dt.date(2024, 3, 1),
        last=dt.date(2024, 3, 4),
        newest=now + HOUR,
    )
    assert (second.run_id, second.states) == ("s", {JobState.LOADING: 1})
