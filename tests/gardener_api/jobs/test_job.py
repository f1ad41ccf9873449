import datetime as dt
from collections.abc import Callable
from dataclasses import replace

import pytest

from gardener_api.jobs import job as jobs
from gardener_api.jobs.job import (
    ENDED,
    OPEN,
    PARSING_STATES,
    TABLE_STATES,
    TRANSITIONS,
    Job,
    JobKey,
    JobRequest,
    JobState,
    Priority,
    TransitionError,
)

Wanted = Callable[..., JobRequest]


@pytest.fixture
def job(wanted: Wanted, now: dt.datetime) -> Job:
    return jobs.new_job(wanted(), 1, now=now)


class TestKey:
    def test_text_and_back(self) -> None:
        key = JobKey.parse("archive-mlab-oti/ndt/ndt7/20240301")
        assert key == JobKey(
            bucket="archive-mlab-oti", experiment="ndt", datatype="ndt7", date=dt.date(2024, 3, 1)
        )
        assert str(key) == "archive-mlab-oti/ndt/ndt7/20240301"
        assert key.source == "ndt/ndt7"
        assert key.prefix == "ndt/ndt7/2024/03/01/"

    @pytest.mark.parametrize(
        "text",
        ["", "a/b/c", "a/b/c/2024030", "a/b/c/20240231", "a/b/c/20240301~2.1", "a//c/20240301",
         "a/b/c/d/20240301", "a/b/c/२०२४०३०१"],
    )  # fmt: skip
    def test_no_key(self, text: str) -> None:
        with pytest.raises(ValueError, match="expected bucket/experiment/datatype/YYYYMMDD"):
            JobKey.parse(text)


class TestId:
    def test_the_first_attempt_of_all_is_the_key(self, job: Job) -> None:
        assert job.id == str(job.key)

    @pytest.mark.parametrize(("generation", "attempt"), [(1, 2), (2, 1), (3, 4)])
    def test_any_other_is_named(self, job: Job, generation: int, attempt: int) -> None:
        other = replace(job, generation=generation, attempt=attempt)
        assert other.id == f"{job.key}~{generation}.{attempt}"


class TestTransitions:
    def test_every_state_has_a_line(self) -> None:
        assert set(TRANSITIONS) == set(JobState)
        assert set(JobState) == OPEN | ENDED
        assert not OPEN & ENDED
        assert OPEN > PARSING_STATES | TABLE_STATES

    def test_the_names_that_parsers_and_dashboards_use(self) -> None:
        assert [state.value for state in JobState] == [
            "queued", "init", "parsing", "postProcessing", "loading", "deduplicating", "copying",
            "deleting", "joining", "complete", "failed", "withdrawn",
        ]  # fmt: skip

    @pytest.mark.parametrize("target", JobState)
    @pytest.mark.parametrize("source", JobState)
    def test_move_does_what_the_table_says(
        self, job: Job, source: JobState, target: JobState, now: dt.datetime
    ) -> None:
        at = replace(job, state=source)
        later = now + dt.timedelta(minutes=2)
        if target not in TRANSITIONS[source]:
            with pytest.raises(TransitionError, match=f"{source} to {target}: expected one of"):
                jobs.move(at, target, now=later)
            return
        change = jobs.move(at, target, now=later, detail="d")
        assert (change.job.state, change.job.entered, change.job.detail) == (target, later, "d")
        assert change.job.ended == (later if target in ENDED else None)
        [event] = change.events
        assert (event.state, event.left, event.seconds) == (target, source, 120)

    def test_nothing_leaves_the_queue_but_by_being_handed_out_or_taken_back(self) -> None:
        assert TRANSITIONS[JobState.QUEUED] == {JobState.INIT, JobState.WITHDRAWN}

    def test_every_table_state_can_fail_end_and_begin_anew(self) -> None:
        for state in TABLE_STATES:
            assert {JobState.FAILED, JobState.COMPLETE, JobState.LOADING} <= TRANSITIONS[state]

    def test_the_first_end_is_kept(self, job: Job, now: dt.datetime) -> None:
        ended = replace(job, state=JobState.LOADING, ended=now)
        change = jobs.move(ended, JobState.COMPLETE, now=now + dt.timedelta(days=1))
        assert change.job.ended == now


class TestAttaches:
    @pytest.mark.parametrize("state", JobState)
    def test_who_asks_again(self, job: Job, state: JobState) -> None:
        again = replace(job, state=state)
        assert jobs.attaches(again, own=True) is (
            state not in (JobState.FAILED, JobState.WITHDRAWN)
        )

    @pytest.mark.parametrize("state", JobState)
    def test_somebody_else(self, job: Job, state: JobState, now: dt.datetime) -> None:
        waits = state in OPEN and state is not JobState.JOINING
        assert jobs.attaches(replace(job, state=state), own=False) is waits
        assert not jobs.attaches(replace(job, state=state, ended=now), own=False)


def test_priorities_order_daily_backfill_historical() -> None:
    assert sorted(Priority) == [Priority.DAILY, Priority.BACKFILL, Priority.HISTORICAL]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("plain", "plain"),
        ("a\0b", "a\ufffdb"),
        ("é\0", "é\ufffd"),
        ("\ud83d half", "? half"),
        ("x" * 5000, "x" * 2000),
        ("é" * 5000, "é" * 2000),
    ],
)
def test_clean_text(text: str, clean: str) -> None:
    assert jobs.clean_text(text) == clean
