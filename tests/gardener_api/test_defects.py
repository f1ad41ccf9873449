"""What the old gardener got wrong, by number; each test fails on a gardener with that defect."""

import datetime as dt
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.api_core.exceptions import ServiceUnavailable
from scraping import scraped
from starlette.testclient import TestClient

from gardener_api.archive import ArchiveError, list_archives
from gardener_api.config import GardenerConfig
from gardener_api.jobs.job import TABLE_STATES, Job, JobKey, JobRequest, JobState, Priority
from gardener_api.jobs.parser_calls import BadState, Error, Gone, Heartbeat, Update
from gardener_api.status.pages import create_status_app
from gardener_api.store.schema import StoreError
from gardener_api.store.store import JobStore

Wanted = Callable[..., JobRequest]
MakeKey = Callable[..., JobKey]
OpenStore = Callable[..., JobStore]

HOUR = dt.timedelta(hours=1)
LEASE = 5 * HOUR


@pytest.fixture
def leased(store: JobStore, wanted: Wanted, now: dt.datetime) -> Job:
    """A job that a parser has."""
    store.enqueue([wanted()], now=now)
    [job] = store.lease(1, parser="10.0.0.7", now=now)
    return job


class TestD01:
    @pytest.mark.parametrize("call", [Heartbeat, lambda job_id: Update(job_id, "parsing")])
    def test_d01_heartbeats_and_updates_renew_the_lease(
        self, store: JobStore, leased: Job, now: dt.datetime, call: Callable[[str], Any]
    ) -> None:
        for hours in range(4, 40, 4):
            store.apply([call(leased.id)], now=now + hours * HOUR)
            assert store.expire(now=now + (hours + 4) * HOUR) == []

    def test_d01_a_silent_parsers_job_is_tried_again_logged_and_counted(
        self,
        store: JobStore,
        leased: Job,
        config: GardenerConfig,
        now: dt.datetime,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        assert store.expire(now=now + LEASE - HOUR) == []
        [expired] = store.expire(now=now + LEASE)
        assert (expired.state, expired.attempt) == (JobState.QUEUED, 2)
        assert [r.levelno for r in caplog.records] == [logging.WARNING]
        assert "10.0.0.7 was silent" in vars(caplog.records[0])["detail"]
        assert "leaseExpired" in [event.state for event in store.events(leased.number)]
        text = scraped(config, store, now=now)
        assert (
            'gardener_warning_total{datatype="ndt7",experiment="ndt",status="leaseExpired"} 1.0'
            in text
        )

    def test_d01_after_the_last_attempt_it_is_failed_and_says_so(
        self, store: JobStore, leased: Job, config: GardenerConfig, now: dt.datetime
    ) -> None:
        for attempt in (1, 2, 3):
            now += LEASE
            [job] = store.expire(now=now)
            assert "10.0.0.7" in job.error
            assert f"attempt {attempt} of 3" in job.error
            if attempt < 3:
                store.lease(1, parser="10.0.0.7", now=now)
        assert (job.state, job.failed_in) == (JobState.FAILED, JobState.INIT)
        assert store.lease(1, now=now) == []
        assert [o.job for o in store.unreported("run:a", run_id="a")] == [job]
        text = scraped(config, store, now=now)
        assert 'gardener_fail_total{datatype="ndt7",experiment="ndt"' in text
        assert (
            'gardener_tasks_in_flight{datatype="ndt7",experiment="ndt",state="init-failed"} 1.0'
            in text
        )


class TestD02:
    def test_d02_a_daily_job_whose_parser_dies_right_after_next_comes_back(
        self, store: JobStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        store.enqueue([wanted(priority=Priority.DAILY, daily=True)], now=now)
        [first] = store.lease(1, now=now)
        assert store.lease(1, now=now) == []
        store.expire(now=now + LEASE)
        [second] = store.lease(1, now=now + LEASE)
        assert (second.number, second.attempt, second.daily) == (first.number, 2, True)

    def test_d02_nothing_but_handing_out_takes_a_job_from_the_queue(
        self, store: JobStore, wanted: Wanted, make_key: MakeKey, now: dt.datetime
    ) -> None:
        [job] = store.enqueue([wanted()], now=now)
        store.apply([Heartbeat(job.id), Error(job.id, "x"), Update(job.id, "parsing")], now=now)
        store.stage(make_key(), JobState.LOADING, run_id="t", now=now)
        store.fail_stage(make_key(), "x", run_id="t", number=job.number, now=now)
        store.expire(now=now + 1000 * LEASE)
        store.mark_reported([job.number], run_id="a", now=now)
        assert store.job(job.number) == job

    def test_d02_a_storage_error_is_an_error_not_an_empty_day(self, make_key: MakeKey) -> None:
        class Broken:
            def list_blobs(self, *_: object, **__: object) -> None:
                raise ServiceUnavailable("try later")

        with pytest.raises(ArchiveError, match=r"gs://b/ndt/ndt7/2024/03/01/ .* 503 try later"):
            list_archives(Broken(), "b", make_key().prefix)


class TestD03:
    def test_d03_an_answered_call_is_committed(
        self, store: JobStore, leased: Job, open_store: OpenStore, now: dt.datetime
    ) -> None:
        [answer] = store.apply([Update(leased.id, "parsing", "a.tgz")], now=now)
        # Not closed, nothing flushed: another process sees what it would see after a kill.
        assert open_store().job(leased.number) == answer

    def test_d03_a_store_that_cannot_be_read_is_an_error_at_start(self, tmp_path: Path) -> None:
        path = tmp_path / "gardener.db"
        url = f"sqlite:///{path}"
        JobStore.open(url, lease=LEASE, max_attempts=3).close()
        with path.open("r+b") as file:
            file.write(b"\0" * 4096)
        with pytest.raises(StoreError, match="file is not a database"):
            JobStore.open(url, lease=LEASE, max_attempts=3)


def test_d04_a_restart_changes_nothing(
    store: JobStore,
    open_store: OpenStore,
    wanted: Wanted,
    make_key: MakeKey,
    now: dt.datetime,
) -> None:
    asks = [wanted(day, priority=Priority.DAILY, daily=True) for day in range(1, 6)]
    store.enqueue(asks, now=now)
    one, two, three, _ = store.lease(4, now=now)
    store.apply(
        [
            Update(one.id, "parsing", "a"),
            Update(two.id, "postProcessing"),
            Error(three.id, "no disk"),
        ],
        now=now,
    )
    store.stage(make_key(2), JobState.LOADING, run_id="t", now=now)
    before = store.jobs(limit=10)
    store.close()
    again = open_store()
    assert again.jobs(limit=10) == before
    assert again.expire(now=now + LEASE - HOUR) == []
    assert isinstance(again.apply([Heartbeat(one.id)], now=now)[0], Job)
    queued = again.lease(10, now=now)
    assert [job.key.date.day for job in queued] == [3, 5], "what is out is not handed out again"


def test_d05_an_error_ends_the_attempt_and_the_next_one_is_handed_out(
    store: JobStore, leased: Job, now: dt.datetime
) -> None:
    for attempt in (1, 2, 3):
        job_id = leased.id if attempt == 1 else f"{leased.id}~1.{attempt}"
        [answer] = store.apply([Error(job_id, f"no disk, {attempt}")], now=now)
        assert isinstance(answer, Job)
        assert answer.error == f"no disk, {attempt}"
        if attempt < 3:
            [again] = store.lease(1, now=now)
            assert (again.number, again.attempt) == (leased.number, attempt + 1)
    failed = store.job(leased.number)
    assert failed is not None
    assert failed.state is JobState.FAILED
    assert store.lease(1, now=now) == []


class TestD06:
    @pytest.mark.parametrize("state", ["complete", "loading", "init", "no state at all"])
    def test_d06_not_any_state(
        self, store: JobStore, leased: Job, now: dt.datetime, state: str
    ) -> None:
        [answer] = store.apply([Update(leased.id, state)], now=now)
        assert isinstance(answer, BadState)
        assert store.job(leased.number) == leased

    def test_d06_not_in_any_order(self, store: JobStore, leased: Job, now: dt.datetime) -> None:
        store.apply([Update(leased.id, "postProcessing")], now=now)
        [answer] = store.apply([Update(leased.id, "parsing")], now=now)
        assert isinstance(answer, BadState)

    @pytest.mark.parametrize("leased_again", [False, True])
    def test_d06_a_parser_that_lost_its_job_cannot_move_it(
        self, store: JobStore, leased: Job, now: dt.datetime, leased_again: bool
    ) -> None:
        store.expire(now=now + LEASE)
        if leased_again:
            store.lease(1, now=now + LEASE)
        before = store.job(leased.number)
        for call in (
            Heartbeat(leased.id),
            Update(leased.id, "postProcessing", "done"),
            Error(leased.id, "x"),
        ):
            assert store.apply([call], now=now + LEASE) == [Gone(leased.id)]
        assert store.job(leased.number) == before


def test_d07_a_heartbeat_cannot_undo_an_update(
    open_store: OpenStore, wanted: Wanted, now: dt.datetime
) -> None:
    first, second = open_store(), open_store()
    first.enqueue([wanted(day) for day in range(1, 21)], now=now)
    jobs = first.lease(20, now=now)
    ended = threading.Event()
    beats = 0

    def beat() -> None:
        nonlocal beats
        while not ended.wait(0.001):
            answers = second.apply([Heartbeat(job.id) for job in jobs], now=now)
            assert all(isinstance(answer, Job) for answer in answers)
            beats += 1

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        for number in range(5):
            for job in jobs:
                [answer] = first.apply([Update(job.id, "parsing", f"file {number}")], now=now)
                assert first.job(job.number) == answer
        for job in jobs:
            first.apply([Update(job.id, "postProcessing", "done")], now=now)
    finally:
        ended.set()
        thread.join()
    assert beats > 1
    assert {(job.state, job.detail) for job in first.jobs(limit=100)} == {
        (JobState.POST_PROCESSING, "done")
    }


def test_d08_retries_end_with_the_last_error(
    open_store: OpenStore, wanted: Wanted, now: dt.datetime
) -> None:
    store = open_store(max_attempts=4)
    [job] = store.enqueue([wanted()], now=now)
    attempts = 0
    while leased := store.lease(1, now=now):
        attempts += 1
        assert attempts <= 4
        store.apply([Error(leased[0].id, f"no disk, {attempts}")], now=now)
    failed = store.job(job.number)
    assert failed is not None
    assert (attempts, failed.state, failed.error) == (4, JobState.FAILED, "no disk, 4")


def test_d09_only_parsers_have_leases(
    store: JobStore, leased: Job, make_key: MakeKey, now: dt.datetime
) -> None:
    store.apply([Update(leased.id, "postProcessing")], now=now)
    for days, state in enumerate(["postProcessing", *sorted(TABLE_STATES)]):
        later = now + dt.timedelta(days=365 * (days + 1))
        if state != "postProcessing":
            store.stage(make_key(), JobState.LOADING, run_id="t", now=now)
            store.stage(make_key(), JobState(state), run_id="t", now=now)
        assert store.expire(now=later) == []
        job = store.latest(make_key())
        assert job is not None
        assert (job.state, job.attempt, job.lease_expires) == (state, 1, None)
    complete = store.stage(make_key(), JobState.COMPLETE, run_id="t", now=now)
    assert complete is not None
    assert complete.state is JobState.COMPLETE


@pytest.mark.parametrize(
    "page",
    [
        "/",
        "/status",
        "/jobs",
        "/jobs?state=x",
        "/job/1",
        "/job/99",
        "/sources",
        "/api/jobs",
        "/api/jobs/1",
    ],
)
def test_d18_the_status_page_shows_no_environment(
    store: JobStore,
    leased: Job,
    config: GardenerConfig,
    now: dt.datetime,
    monkeypatch: pytest.MonkeyPatch,
    page: str,
) -> None:
    assert leased.number == 1
    monkeypatch.setenv("GARDENER_CANARY", "canary-value")
    monkeypatch.setenv("GARDENER_API_TOKEN", "token-value")
    client = TestClient(create_status_app(config, store, clock=lambda: now))
    text = client.get(page).text
    assert "canary" not in text.lower()
    assert "token" not in text
    assert "PATH" not in text


def test_d19_daily_is_fixed_when_the_job_is_made(
    store: JobStore, wanted: Wanted, make_key: MakeKey, config: GardenerConfig, now: dt.datetime
) -> None:
    store.enqueue([wanted(1, daily=True), wanted(2, daily=False)], now=now)
    store.enqueue([wanted(1, requester="b", daily=False), wanted(2, daily=True)], now=now)
    later = now + dt.timedelta(days=3)
    for job in store.lease(2, now=later - HOUR):
        store.apply([Update(job.id, "postProcessing")], now=later)
        store.stage(job.key, JobState.LOADING, run_id="t", now=later)
        store.stage(job.key, JobState.COMPLETE, run_id="t", now=later)
    kept = [store.latest(make_key(day)) for day in (1, 2)]
    assert [job.daily for job in kept if job] == [True, False]
    text = scraped(config, store, now=later)
    for daily in ("true", "false"):
        assert (
            f'gardener_jobs_total{{daily="{daily}",datatype="ndt7",experiment="ndt",'
            'status="success"} 1.0' in text
        )
