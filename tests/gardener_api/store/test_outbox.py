import datetime as dt
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Connection, event

from gardener_api.jobs.job import JobRequest
from gardener_api.jobs.parser_calls import Error, Update
from gardener_api.store.outbox import Outbox
from gardener_api.store.store import JobStore

Wanted = Callable[..., JobRequest]
LEASE = dt.timedelta(hours=5)
MINUTE = dt.timedelta(minutes=1)


@pytest.fixture
def observed(store_url: str) -> Iterator[JobStore]:
    store = JobStore.open(store_url, lease=LEASE, max_attempts=2, observed=True)
    yield store
    store.close()


def said(outbox: Outbox) -> list[tuple[str, str]]:
    return [
        (str(waiting.observation.key.date), waiting.observation.description)
        for waiting in outbox.first(1000)
    ]


def test_what_happens_at_parsers_is_kept_in_order(
    observed: JobStore, wanted: Wanted, now: dt.datetime
) -> None:
    observed.enqueue([wanted(1), wanted(2)], now=now)
    first, second = observed.lease(2, parser="a", now=now)
    observed.apply([Update(first.id, "parsing"), Error(second.id, "no disk")], now=now)
    observed.expire(now=now + LEASE)
    [again] = observed.lease(1, parser="b", now=now + LEASE)
    observed.apply([Error(again.id, "no disk")], now=now + LEASE)
    assert said(observed.outbox) == [
        ("2024-03-01", "Attempt 1 handed out to parser a"),
        ("2024-03-02", "Attempt 1 handed out to parser a"),
        ("2024-03-02", "Attempt 1 lost: its parser reported an error"),
        ("2024-03-01", "Attempt 1 lost: its lease ended"),
        ("2024-03-01", "Attempt 2 handed out to parser b"),
        ("2024-03-01", "Attempt 2 lost: its parser reported an error"),
        ("2024-03-01", "Parse failed in attempt 2, the last one"),
    ]
    backlog = observed.outbox.backlog()
    assert (backlog.count, backlog.oldest) == (7, now)
    waiting = observed.outbox.first(3)
    observed.outbox.remove([each.number for each in waiting])
    assert len(said(observed.outbox)) == 4


def test_nothing_is_kept_where_nobody_delivers(
    store: JobStore, wanted: Wanted, now: dt.datetime
) -> None:
    store.enqueue([wanted()], now=now)
    [job] = store.lease(1, now=now)
    store.apply([Error(job.id, "no disk")], now=now)
    store.lease(1, now=now)
    store.expire(now=now + LEASE)
    assert store.outbox.backlog().count == 0
    assert store.outbox.backlog().oldest is None


def test_a_change_that_is_not_committed_is_not_observed(
    observed: JobStore, wanted: Wanted, now: dt.datetime
) -> None:
    observed.enqueue([wanted()], now=now)

    def fail(_: Connection) -> None:
        raise RuntimeError("no commit")

    event.listen(observed._writer, "commit", fail)
    with pytest.raises(RuntimeError, match="no commit"):
        observed.lease(1, now=now)
    event.remove(observed._writer, "commit", fail)
    assert observed.outbox.backlog().count == 0
    assert len(observed.lease(1, now=now)) == 1
    assert observed.outbox.backlog().count == 1


def test_what_waits_is_bounded_in_time_and_number(
    observed: JobStore, wanted: Wanted, now: dt.datetime
) -> None:
    observed.enqueue([wanted(day) for day in range(1, 6)], now=now)
    for minute in range(5):
        observed.lease(1, now=now + minute * MINUTE)
    assert observed.outbox.drop(before=now, keep=5) == 0
    assert observed.outbox.drop(before=now + MINUTE, keep=5) == 1
    assert observed.outbox.drop(before=now, keep=2) == 2
    assert [date for date, _ in said(observed.outbox)] == ["2024-03-04", "2024-03-05"]


def test_one_process_at_a_time_delivers(store: JobStore, now: dt.datetime) -> None:
    outbox = store.outbox
    assert outbox.lease("a", until=now + MINUTE, now=now)
    assert not outbox.lease("b", until=now + MINUTE, now=now)
    assert outbox.lease("a", until=now + 2 * MINUTE, now=now + MINUTE / 2), "it is renewed"
    assert not outbox.lease("b", until=now + 3 * MINUTE, now=now + MINUTE)
    assert outbox.lease("b", until=now + 3 * MINUTE, now=now + 2 * MINUTE), "it has ended"
    outbox.release("a")
    assert not outbox.lease("a", until=now + 3 * MINUTE, now=now + 2 * MINUTE)
    outbox.release("b")
    assert outbox.lease("a", until=now + 3 * MINUTE, now=now + 2 * MINUTE)
