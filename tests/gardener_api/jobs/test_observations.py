import datetime as dt
from collections.abc import Callable

import pytest

from gardener_api.jobs.job import Ask, Change, Job, new_job
from gardener_api.jobs.observations import Observation, observations
from gardener_api.jobs.parser_calls import (
    Error,
    Next,
    Terms,
    Update,
    apply_report,
    expire_lease,
    hand_out,
)

MakeAsk = Callable[..., Ask]
LEASE = dt.timedelta(hours=5)
TERMS = Terms(lease=LEASE, max_attempts=2)
LAST = Terms(lease=LEASE, max_attempts=1)


@pytest.fixture
def held(make_ask: MakeAsk, now: dt.datetime) -> Job:
    """A job that a parser has."""
    return hand_out(new_job(make_ask(), 1, now=now), Next("10.0.0.7"), terms=TERMS, now=now).job


def one(change: object) -> Observation:
    assert isinstance(change, Change)
    [observation] = observations([change])
    return observation


def test_a_job_is_handed_out(make_ask: MakeAsk, now: dt.datetime) -> None:
    job = new_job(make_ask(), 1, now=now)
    observation = one(hand_out(job, Next("10.0.0.7"), terms=TERMS, now=now))
    assert observation.key == job.key
    assert observation.at == now
    assert observation.description == "Attempt 1 handed out to parser 10.0.0.7"
    assert observation.metadata == {
        "state": "init",
        "attempt": 1,
        "parse": 1,
        "job": 0,
        "time": "2024-03-02 10:30:00 UTC",
        "parser": "10.0.0.7",
    }


def test_a_lease_ends(held: Job, now: dt.datetime) -> None:
    observation = one(expire_lease(held, terms=TERMS, now=now + LEASE))
    assert observation.description == "Attempt 1 lost: its lease ended"
    assert "parser 10.0.0.7 was silent" in str(observation.metadata["reason"])
    assert observation.metadata["attempt"] == 1


def test_a_parser_gives_up(held: Job, now: dt.datetime) -> None:
    observation = one(apply_report(held, Error(held.id, "disk full"), terms=TERMS, now=now))
    assert observation.description == "Attempt 1 lost: its parser gave it up"
    assert observation.metadata["reason"] == "disk full"


def test_the_last_attempt_fails(held: Job, now: dt.datetime) -> None:
    change = apply_report(held, Error(held.id, "disk full"), terms=LAST, now=now)
    assert isinstance(change, Change)
    lost, failed = observations([change])
    assert lost.description == "Attempt 1 lost: its parser gave it up"
    assert failed.description == "Parse failed in attempt 1, the last one"
    assert failed.metadata["reason"] == "disk full"


def test_nothing_else_is_observed(held: Job, now: dt.datetime) -> None:
    for state in ("parsing", "postProcessing"):
        change = apply_report(held, Update(held.id, state, "x"), terms=TERMS, now=now)
        assert isinstance(change, Change)
        assert change.events
        assert observations([change]) == []
