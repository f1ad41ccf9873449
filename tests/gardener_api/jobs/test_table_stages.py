"""Jobs in the stages of their tables."""

import datetime as dt
from collections.abc import Callable
from dataclasses import replace

import pytest

from gardener_api.jobs.job import (
    TABLE_STATES,
    Job,
    JobKey,
    JobRequest,
    JobState,
    TransitionError,
    new_job,
)
from gardener_api.jobs.parser_calls import Update
from gardener_api.jobs.table_stages import enter_stage
from gardener_api.store.store import JobStore

Wanted = Callable[..., JobRequest]
MakeKey = Callable[..., JobKey]

HOUR = dt.timedelta(hours=1)


def done(store: JobStore, job: Job, now: dt.datetime) -> Job:
    [answer] = store.apply([Update(job.id, "postProcessing")], now=now)
    assert isinstance(answer, Job)
    return answer


class TestMoves:
    @pytest.fixture
    def job(self, wanted: Wanted, now: dt.datetime) -> Job:
        return new_job(wanted(), 1, now=now)

    @pytest.fixture
    def parsed(self, job: Job, now: dt.datetime) -> Job:
        return replace(job, state=JobState.POST_PROCESSING, parsed=now, error="no disk")

    def test_completion_clears_the_error(self, parsed: Job, now: dt.datetime) -> None:
        loading = enter_stage(parsed, JobState.LOADING, run_id="t", detail="", now=now)
        assert loading is not None
        assert loading.job.error == "no disk"
        complete = enter_stage(loading.job, JobState.COMPLETE, run_id="t", detail="", now=now)
        assert complete is not None
        assert complete.job.error == ""

    def test_the_same_stage_again(self, parsed: Job, now: dt.datetime) -> None:
        first = enter_stage(parsed, JobState.LOADING, run_id="t", detail="a", now=now)
        assert first is not None
        later = now + dt.timedelta(minutes=1)
        detail = enter_stage(first.job, JobState.LOADING, run_id="t", detail="b", now=later)
        assert detail is not None
        assert (detail.job.detail, detail.job.entered, detail.events) == ("b", now, ())
        taken = enter_stage(first.job, JobState.LOADING, run_id="u", detail="c", now=later)
        assert taken is not None
        assert (taken.job.run_id, taken.job.entered, len(taken.events)) == ("u", later, 1)

    def test_a_parse_that_failed_has_no_tables(self, job: Job, now: dt.datetime) -> None:
        failed = replace(job, state=JobState.FAILED)
        change = enter_stage(failed, JobState.LOADING, run_id="t", detail="", now=now)
        assert change is None

    @pytest.mark.parametrize("state", sorted(TABLE_STATES))
    def test_a_join_of_what_was_in_raw_before_leaves_the_job_to_its_own_run(
        self, parsed: Job, state: JobState, now: dt.datetime
    ) -> None:
        held = replace(parsed, state=state, run_id="t")
        failed = replace(held, state=JobState.FAILED, failed_in=state)
        taken = {
            (job.state, into)
            for job in (held, failed)
            for into in (JobState.JOINING, JobState.COMPLETE)
            if enter_stage(job, into, run_id="join", detail="", now=now)
        }
        assert taken == {
            JobState.DELETING: {(JobState.FAILED, JobState.JOINING)},
            JobState.JOINING: {
                (JobState.JOINING, JobState.JOINING),
                (JobState.JOINING, JobState.COMPLETE),
                (JobState.FAILED, JobState.JOINING),
            },
        }.get(state, set())
        for job in (held, failed):
            assert enter_stage(job, JobState.LOADING, run_id="again", detail="", now=now)

    def test_a_run_completes_what_it_joins(self, parsed: Job, now: dt.datetime) -> None:
        for held in (
            replace(parsed, state=JobState.DELETING, run_id="join"),
            replace(parsed, state=JobState.JOINING, run_id="t"),
            replace(parsed, state=JobState.FAILED, failed_in=JobState.JOINING, run_id="t"),
            replace(parsed, state=JobState.COMPLETE, run_id="t"),
        ):
            joining = enter_stage(held, JobState.JOINING, run_id="join", detail="", now=now)
            assert joining is not None
            complete = enter_stage(
                joining.job, JobState.COMPLETE, run_id="join", detail="", now=now
            )
            assert complete is not None
            assert complete.job.state is JobState.COMPLETE


class TestInTheStore:
    def test_a_whole_life(
        self, store: JobStore, wanted: Wanted, make_key: MakeKey, now: dt.datetime
    ) -> None:
        store.enqueue([wanted()], now=now)
        [job] = store.lease(1, now=now)
        assert store.stage(make_key(), JobState.LOADING, run_id="t", now=now) is None
        done(store, job, now)
        for i, state in enumerate(
            ["loading", "deduplicating", "copying", "deleting", "joining", "complete"]
        ):
            moved = store.stage(
                make_key(), JobState(state), run_id="t", detail=f"step {i}", now=now + i * HOUR
            )
            assert moved is not None
            assert (moved.state, moved.run_id, moved.detail) == (state, "t", f"step {i}")
            assert (store.in_tables() == [moved]) is (state != "complete")
        assert store.open_keys([make_key()]) == {}
        assert [(e.state, e.left, e.seconds) for e in store.events(job.number)][-2:] == [
            ("joining", "deleting", 3600),
            ("complete", "joining", 3600),
        ]

    def test_a_run_fails_its_stage(
        self, store: JobStore, wanted: Wanted, make_key: MakeKey, now: dt.datetime
    ) -> None:
        store.enqueue([wanted(archives=0)], now=now)
        store.stage(make_key(), JobState.LOADING, run_id="t", now=now)
        assert store.fail_stage(make_key(), "x", run_id="another", now=now) is None
        failed = store.fail_stage(make_key(), "No such field: x", run_id="t", now=now)
        assert failed is not None
        assert (failed.state, failed.failed_in) == (JobState.FAILED, JobState.LOADING)
        assert failed.error == "No such field: x"
        assert store.fail_stage(make_key(), "again", run_id="t", now=now) is None
        again = store.stage(make_key(), JobState.LOADING, run_id="u", now=now)
        assert again is not None
        assert (again.state, again.failed_in, again.reopened) == (JobState.LOADING, None, True)

    def test_a_run_that_never_began_can_fail_only_its_own_job(
        self, store: JobStore, wanted: Wanted, make_key: MakeKey, now: dt.datetime
    ) -> None:
        [job] = store.enqueue([wanted(archives=0)], now=now)
        assert store.fail_stage(make_key(), "x", run_id="t", now=now) is None
        assert store.fail_stage(make_key(), "x", run_id="t", number=99, now=now) is None
        failed = store.fail_stage(make_key(), "x", run_id="t", number=job.number, now=now)
        assert failed is not None
        assert failed.failed_in is JobState.POST_PROCESSING

    def test_a_run_on_an_older_parse_does_not_take_a_newer_one(
        self, store: JobStore, wanted: Wanted, make_key: MakeKey, now: dt.datetime
    ) -> None:
        store.enqueue([wanted(archives=0)], now=now)
        store.stage(make_key(), JobState.LOADING, run_id="t", now=now)
        store.stage(make_key(), JobState.COMPLETE, run_id="t", now=now)
        store.stage(make_key(), JobState.DEDUPLICATING, run_id="old", now=now)
        [new] = store.enqueue([wanted(archives=0, requester="run:b")], now=now)
        for state in (JobState.COPYING, JobState.JOINING, JobState.COMPLETE):
            assert store.stage(make_key(), state, run_id="old", now=now) is None
        assert store.fail_stage(make_key(), "x", run_id="old", now=now) is None
        assert [item.job for item in store.parsed_jobs()] == [new]

    def test_no_job(self, store: JobStore, make_key: MakeKey, now: dt.datetime) -> None:
        assert store.stage(make_key(), JobState.LOADING, run_id="t", now=now) is None
        assert store.fail_stage(make_key(), "x", run_id="t", now=now) is None

    def test_stages_are_stages(
        self, store: JobStore, wanted: Wanted, make_key: MakeKey, now: dt.datetime
    ) -> None:
        store.enqueue([wanted(archives=0)], now=now)
        with pytest.raises(TransitionError, match="queued is no stage"):
            store.stage(make_key(), JobState.QUEUED, run_id="t", now=now)
        store.stage(make_key(), JobState.LOADING, run_id="t", now=now)
        store.stage(make_key(), JobState.COMPLETE, run_id="t", now=now)
        with pytest.raises(TransitionError, match="complete to copying: expected one of"):
            store.stage(make_key(), JobState.COPYING, run_id="t", now=now)
