import datetime as dt
from collections.abc import Callable

import pytest

from gardener_api.jobs.job import Change, Job, JobRequest, new_job
from gardener_api.jobs.observations import Observation, observations
from gardener_api.jobs.parser_calls import (
    Error,
    LeasePolicy,
    Next,
    Update,
    apply_report,
    expire_lease,
    hand_out,
)

Wanted = Callable[..., JobRequest]
LEASE = dt.timedelta(hours=5)
POLICY = LeasePolicy(lease=LEASE, max_attempts=2)
LAST = LeasePolicy(lease=LEASE, max_attempts=1)


@pytest.fixture
def held(wanted: Wanted, now: dt.datetime) -> Job:
    """A job that a parser has."""
    return hand_out(new_job(wanted(), 1, now=now), Next("10.0.0.7"), policy=POLICY, now=now).job


def one(change: object) -> Observation:
    assert isinstance(change, Change)
    [observation] = observations([change])
    return observation


def test_a_job_is_handed_out(wanted: Wanted, now: dt.datetime) -> None:
    job = new_job(wanted(), 1, now=now)
    observation = one(hand_out(job, Next("10.0.0.7"), policy=POLICY, now=now))
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
    observation = one(expire_lease(held, policy=POLICY, now=now + LEASE))
    assert observation.description == "Attempt 1 lost: its lease ended"
    assert "parser 10.0.0.7 was silent" in str(observation.metadata["reason"])
    assert observation.metadata["attempt"] == 1


def test_a_parser_gives_up(held: Job, now: dt.datetime) -> None:
    observation = one(apply_report(held, Error(held.id, "disk full"), policy=POLICY, now=now))
    assert observation.description == "Attempt 1 lost: its parser reported an error"
    assert observation.metadata["reason"] == "disk full"


def test_the_last_attempt_fails(held: Job, now: dt.datetime) -> None:
    change = apply_report(held, Error(held.id, "disk full"), policy=LAST, now=now)
    assert isinstance(change, Change)
    lost, failed = observations([change])
    assert lost.description == "Attempt 1 lost: its parser reported an error"
    assert failed.description == "Parse failed in attempt 1, the last one"
    assert failed.metadata["reason"] == "disk full"


def test_nothing_else_is_observed(held: Job, now: dt.datetime) -> None:
    for state in ("parsing", "postProcessing"):
        change = apply_report(held, Update(held.id, state, "x"), policy=POLICY, now=now)
        assert isinstance(change, Change)
        assert change.events
        assert observations([change]) == []
