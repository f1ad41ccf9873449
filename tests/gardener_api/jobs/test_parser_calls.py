import datetime as dt
from collections.abc import Callable
from dataclasses import replace

import pytest

from gardener_api.jobs.job import TABLE_STATES, Change, Job, JobKey, JobRequest, JobState, new_job
from gardener_api.jobs.parser_calls import (
    BadState,
    Error,
    Gone,
    Heartbeat,
    LeasePolicy,
    Next,
    Report,
    Update,
    apply_report,
    expire_lease,
    hand_out,
)
from gardener_api.store.store import JobStore

Wanted = Callable[..., JobRequest]
HOUR = dt.timedelta(hours=1)
POLICY = LeasePolicy(lease=5 * HOUR, max_attempts=2)


@pytest.fixture
def leased(wanted: Wanted, now: dt.datetime) -> Job:
    return hand_out(new_job(wanted(), 1, now=now), Next("10.0.0.7"), policy=POLICY, now=now).job


def done(job: Job, call: Report, now: dt.datetime) -> Change:
    outcome = apply_report(job, call, policy=POLICY, now=now)
    assert isinstance(outcome, Change)
    return outcome


@pytest.fixture
def parsed(leased: Job, now: dt.datetime) -> Job:
    return done(leased, Update(leased.id, "postProcessing", "12 files"), now).job


class TestUpdate:
    def test_parsing(self, leased: Job, now: dt.datetime) -> None:
        change = done(leased, Update(leased.id, "parsing", "starting tasks"), now + HOUR)
        assert change.job.state is JobState.PARSING
        assert change.job.detail == "starting tasks"
        assert change.job.lease_expires == now + 6 * HOUR
        assert [e.state for e in change.events] == ["parsing"]

    def test_a_file_more(self, leased: Job, now: dt.datetime) -> None:
        parsing = done(leased, Update(leased.id, "parsing", "a"), now).job
        change = done(parsing, Update(leased.id, "parsing", "b"), now + HOUR)
        assert (change.job.detail, change.job.entered) == ("b", now)
        assert (change.job.updated, change.job.lease_expires) == (now + HOUR, now + 6 * HOUR)
        assert change.events == ()

    @pytest.mark.parametrize(("said", "kept"), [("-", "a"), ("", ""), ("b", "b"), ("--", "--")])
    def test_detail(self, leased: Job, now: dt.datetime, said: str, kept: str) -> None:
        parsing = done(leased, Update(leased.id, "parsing", "a"), now).job
        assert done(parsing, Update(leased.id, "parsing", said), now).job.detail == kept

    def test_a_day_without_files_goes_from_init_to_post_processing(
        self, leased: Job, now: dt.datetime
    ) -> None:
        change = done(leased, Update(leased.id, "postProcessing", ""), now + HOUR)
        assert change.job.state is JobState.POST_PROCESSING
        assert (change.job.parsed, change.job.lease_expires) == (now + HOUR, None)

    def test_post_processing_again(self, parsed: Job, now: dt.datetime) -> None:
        change = done(parsed, Update(parsed.id, "postProcessing", "again"), now + HOUR)
        assert change == Change(job=replace(parsed, detail="again"))

    @pytest.mark.parametrize("state", [*sorted(TABLE_STATES), JobState.COMPLETE, JobState.FAILED])
    def test_post_processing_again_after_the_tables_began(
        self, parsed: Job, state: JobState, now: dt.datetime
    ) -> None:
        later = replace(parsed, state=state, detail="ours")
        assert done(later, Update(parsed.id, "postProcessing", "again"), now).job is later

    def test_parsing_after_post_processing(self, parsed: Job, now: dt.datetime) -> None:
        outcome = apply_report(parsed, Update(parsed.id, "parsing", ""), policy=POLICY, now=now)
        assert outcome == BadState(
            parsed.id, "parsing", "expected postProcessing, which was said already"
        )

    @pytest.mark.parametrize(
        "state", ["queued", "init", "loading", "complete", "failed", "parseError", "Parsing", "x"]
    )
    def test_other_states(self, leased: Job, now: dt.datetime, state: str) -> None:
        outcome = apply_report(leased, Update(leased.id, state, ""), policy=POLICY, now=now)
        assert outcome == BadState(leased.id, state, "expected parsing or postProcessing")


class TestHeartbeat:
    def test_renews(self, leased: Job, now: dt.datetime) -> None:
        change = done(leased, Heartbeat(leased.id), now + HOUR)
        assert change.job == replace(leased, updated=now + HOUR, lease_expires=now + 6 * HOUR)
        assert change.events == ()

    def test_late_but_before_the_sweep_renews_too(self, leased: Job, now: dt.datetime) -> None:
        change = done(leased, Heartbeat(leased.id), now + 9 * HOUR)
        assert change.job.lease_expires == now + 14 * HOUR

    def test_after_the_parse_changes_nothing(self, parsed: Job, now: dt.datetime) -> None:
        assert done(parsed, Heartbeat(parsed.id), now + HOUR) == Change(job=parsed)


class TestError:
    def test_the_next_attempt_is_queued(self, leased: Job, now: dt.datetime) -> None:
        change = done(leased, Error(leased.id, "no disk"), now + HOUR)
        job = change.job
        assert (job.state, job.attempt, job.error) == (JobState.QUEUED, 2, "no disk")
        assert (job.parser, job.leased, job.lease_expires) == ("", None, None)
        assert [(e.state, e.left, e.seconds, e.attempt) for e in change.events] == [
            ("parseError", "init", 3600, 1),
            ("queued", "parseError", 0, 2),
        ]
        assert change.events[0].detail == "no disk"

    def test_the_last_attempt_fails_the_job(self, leased: Job, now: dt.datetime) -> None:
        last = replace(leased, attempt=2, state=JobState.PARSING)
        change = done(last, Error(last.id, "no disk"), now)
        job = change.job
        assert (job.state, job.failed_in, job.error) == (
            JobState.FAILED,
            JobState.PARSING,
            "no disk",
        )
        assert job.ended == now

    def test_not_after_the_parse(self, parsed: Job, now: dt.datetime) -> None:
        outcome = apply_report(parsed, Error(parsed.id, "no disk"), policy=POLICY, now=now)
        assert outcome == Gone(parsed.id)


class TestGone:
    @pytest.mark.parametrize("call", [Update("x", "parsing"), Heartbeat("x"), Error("x", "e")])
    def test_unknown(self, call: Report, now: dt.datetime) -> None:
        assert apply_report(None, call, policy=POLICY, now=now) == Gone("x")

    def test_a_state_that_is_none_of_an_unknown_job(self, now: dt.datetime) -> None:
        assert apply_report(None, Update("x", "y"), policy=POLICY, now=now) == Gone("x")

    def test_not_handed_out(self, wanted: Wanted, now: dt.datetime) -> None:
        for job in (new_job(wanted(), 1, now=now), new_job(wanted(archives=0), 1, now=now)):
            assert apply_report(job, Heartbeat(job.id), policy=POLICY, now=now) == Gone(job.id)

    def test_failed_parse(self, leased: Job, now: dt.datetime) -> None:
        failed = done(replace(leased, attempt=2), Error(leased.id, "x"), now).job
        for call in (Heartbeat("x"), Update("x", "postProcessing"), Error("x", "again")):
            assert apply_report(failed, call, policy=POLICY, now=now) == Gone("x")


class TestExpire:
    def test_says_who_when_and_which_attempt(self, leased: Job, now: dt.datetime) -> None:
        parsing = done(leased, Update(leased.id, "parsing", "a.tgz"), now).job
        change = expire_lease(parsing, policy=POLICY, now=now + 6 * HOUR)
        assert change.job.state is JobState.QUEUED
        assert change.job.error == (
            "lease ended: parser 10.0.0.7 was silent for more than 5:00:00 in attempt 1 of 2;"
            " its last call: 2024-03-02 10:30:00 UTC, parsing 'a.tgz'"
        )
        assert [e.state for e in change.events] == ["leaseExpired", "queued"]

    def test_the_last_one_fails_the_job(self, leased: Job, now: dt.datetime) -> None:
        change = expire_lease(replace(leased, attempt=2), policy=POLICY, now=now)
        assert (change.job.state, change.job.failed_in) == (JobState.FAILED, JobState.INIT)
        assert "attempt 2 of 2" in change.job.error


@pytest.mark.parametrize(
    "call",
    [Heartbeat, lambda job_id: Update(job_id, "parsing"), lambda job_id: Error(job_id, "x")],
    ids=["heartbeat", "update", "error"],
)
@pytest.mark.parametrize(
    ("bucket", "other"),
    [("a?", "a\ud800"), ("a\ufffd", "a\0"), ("a" * 982, None)],
    ids=["surrogate", "NUL", "too long"],
)
def test_an_id_that_no_database_keeps_is_never_that_of_another_job(
    store: JobStore,
    make_key: Callable[..., JobKey],
    wanted: Wanted,
    now: dt.datetime,
    call: Callable[[str], Report],
    bucket: str,
    other: str | None,
) -> None:
    store.enqueue([wanted(key=replace(make_key(), bucket=bucket))], now=now)
    [job] = store.lease(1, now=now)
    assert len(job.id) <= 1000
    wrong = job.id.replace(bucket, other) if other else job.id + "x"
    assert wrong != job.id
    assert isinstance(store.apply([call(wrong)], now=now)[0], Gone)
    assert store.jobs(limit=1) == [job]
    assert isinstance(store.apply([call(job.id)], now=now)[0], Job)
