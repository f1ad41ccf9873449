import datetime as dt
from collections.abc import Callable

import pytest
from simulated import Parser

from gardener_api.jobs.job import JobKey, JobRequest, JobState
from gardener_api.store.publishing.changes import PartitionChange
from gardener_api.store.publishing.held import Decision, Finding, Outcome
from gardener_api.store.store import JobStore

MakeKey = Callable[..., JobKey]
Wanted = Callable[..., JobRequest]
RAW = "raw_ndt.ndt7"
ROWS = Finding(audit="rows_of_previous", description="7 rows, 10 before", numbers={"rows": 7})
IDS = Finding(audit="ids_of_previous", description="6 of 10 ids")
HOUR = dt.timedelta(hours=1)
Hold = Callable[..., int]


@pytest.fixture
def hold(store: JobStore, make_key: MakeKey, now: dt.datetime) -> Hold:
    """Holds raw of a day."""

    def record(day: int = 1, *findings: Finding, staged: str = "tmp 1") -> int:
        return store.held.record(
            make_key(day), RAW, findings or (ROWS, IDS), staged=staged, job=1, run_id="r", now=now
        )

    return record


def test_what_is_held_waits_until_somebody_decides(
    store: JobStore, hold: Hold, make_key: MakeKey, now: dt.datetime
) -> None:
    number = hold()
    [held] = store.held.waiting()
    assert (held.number, held.key, held.findings) == (number, make_key(1), (ROWS, IDS))
    assert store.metrics.held() == {("ndt", "ndt7"): 1}
    decided = store.held.decide(
        number, Decision.ACCEPT, by="ada", reason="a box died", now=now + HOUR
    )
    assert decided is not None
    assert (decided.decided_by, decided.reason) == ("ada", "a box died")
    assert decided.decided == now + HOUR
    assert store.held.waiting() == []
    assert [each.number for each in store.held.decided()] == [number]
    assert store.held.accepted(RAW, make_key(1).date, "tmp 1") == {
        "rows_of_previous",
        "ids_of_previous",
    }
    assert store.held.accepted(RAW, make_key(1).date, "tmp 2") == frozenset()
    # A second decision changes nothing.
    assert store.held.decide(number, Decision.REJECT, by="bob", now=now) is None
    store.held.settle(RAW, make_key(1).date, Outcome.PUBLISHED, staged="tmp 1", now=now + 2 * HOUR)
    assert store.held.decided() == []
    [kept] = store.held.of(make_key(1))
    assert (kept.outcome, kept.settled) == (Outcome.PUBLISHED, now + 2 * HOUR)


def test_newer_rows_take_the_place_of_held_ones(
    store: JobStore, hold: Hold, make_key: MakeKey, now: dt.datetime
) -> None:
    first = hold()
    store.held.decide(first, Decision.ACCEPT, by="ada", now=now)
    second = hold(staged="tmp 2")
    assert [each.number for each in store.held.waiting()] == [second]
    assert store.held.decided() == []
    store.held.settle(RAW, make_key(1).date, Outcome.PUBLISHED, staged="tmp 3", now=now)
    assert [each.outcome for each in store.held.of(make_key(1))] == [Outcome.SUPERSEDED] * 2
    assert store.metrics.held() == {}


def test_rows_that_nobody_accepted_are_not_the_accepted_ones(
    store: JobStore, hold: Hold, make_key: MakeKey, now: dt.datetime
) -> None:
    store.held.decide(hold(), Decision.ACCEPT, by="ada", now=now)
    store.held.settle(RAW, make_key(1).date, Outcome.PUBLISHED, staged="tmp 2", now=now)
    assert [each.outcome for each in store.held.of(make_key(1))] == [Outcome.SUPERSEDED]


def test_audits_accepted_one_by_one_add_up(
    store: JobStore, hold: Hold, make_key: MakeKey, now: dt.datetime
) -> None:
    store.held.decide(hold(), Decision.ACCEPT, by="ada", audits=["rows_of_previous"], now=now)
    store.held.decide(hold(1, IDS), Decision.ACCEPT, by="bob", now=now)
    assert store.held.accepted(RAW, make_key(1).date, "tmp 1") == {
        "rows_of_previous",
        "ids_of_previous",
    }


@pytest.mark.parametrize("decision", list(Decision))
def test_the_jobs_history_says_who_decided(
    decision: Decision, store: JobStore, hold: Hold, wanted: Wanted, now: dt.datetime
) -> None:
    store.enqueue([wanted(1)], now=now)
    [job] = store.lease(1, now=now)
    Parser(store).finish(job)
    for state in (JobState.LOADING, JobState.COPYING):
        store.stage(job.key, state, run_id="r", now=now)
    number = hold()
    store.fail_stage(job.key, "held: rows_of_previous: 7", run_id="r", now=now)
    store.held.decide(number, decision, by="ada", reason="because", now=now + HOUR)
    after = store.latest(job.key)
    assert after is not None
    assert (after.state, after.failed_in) == (JobState.FAILED, JobState.COPYING)
    rejected = decision is Decision.REJECT
    assert after.error.startswith("rejected: raw_ndt.ndt7: by ada: because" if rejected else "held")
    *_, last = store.events(job.number)
    assert (last.state, last.detail) == (
        "rejected" if rejected else "accepted",
        "raw_ndt.ndt7: by ada: because",
    )


def test_what_versions_changed(store: JobStore, make_key: MakeKey, now: dt.datetime) -> None:
    date = make_key(1).date
    first = PartitionChange(table=RAW, date=date, version=1, run_id="r", made=now, rows=3)
    second = PartitionChange(
        table=RAW, date=date, version=2, run_id="s", made=now + HOUR, rows=4, rows_before=3,
        ids_added=2, ids_removed=1, ids_kept=2, duplicates=1, parser_versions=("v1",),
    )  # fmt: skip
    for change in (first, second, second):
        store.changes.record(change)
    assert store.changes.of(RAW, date) == [second, first]
    assert store.changes.of("ndt.ndt7", date) == []
