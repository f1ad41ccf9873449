"""What parsers' calls do to jobs in the store."""

import datetime as dt
from collections.abc import Callable

import pytest

from gardener_api.jobs.job import Job, JobRequest, JobState, Priority
from gardener_api.jobs.parser_calls import BadState, Error, Gone, Heartbeat, Next, NoJob, Update
from gardener_api.store.queries.job_queries import JobOrder
from gardener_api.store.store import JobStore

Wanted = Callable[..., JobRequest]

HOUR = dt.timedelta(hours=1)


class TestNext:
    def test_order(self, store: JobStore, wanted: Wanted, now: dt.datetime) -> None:
        store.enqueue(
            [
                wanted(1, priority=Priority.HISTORICAL),
                wanted(4, priority=Priority.BACKFILL),
                wanted(3, priority=Priority.BACKFILL, rank=2),
                wanted(
                    key=wanted(3).key.__class__.parse("b/ndt/annotation2/20240303"),
                    priority=Priority.BACKFILL,
                    rank=1,
                ),
                wanted(9, priority=Priority.DAILY),
            ],
            now=now,
        )
        order = store.jobs(order=JobOrder.NEXT, limit=10)
        leased = [store.lease(1, now=now)[0] for _ in range(5)]
        assert [(j.priority, j.key.date.day, j.rank) for j in leased] == [
            (Priority.DAILY, 9, 0),
            (Priority.BACKFILL, 3, 1),
            (Priority.BACKFILL, 3, 2),
            (Priority.BACKFILL, 4, 0),
            (Priority.HISTORICAL, 1, 0),
        ]
        assert [j.number for j in order] == [j.number for j in leased]
        assert store.apply([Next()], now=now) == [NoJob()]

    def test_a_lease(self, store: JobStore, wanted: Wanted, now: dt.datetime) -> None:
        store.enqueue([wanted()], now=now - HOUR)
        [job] = store.lease(1, parser="10.0.0.7", now=now)
        assert job.state is JobState.INIT
        assert (job.parser, job.leased, job.lease_expires) == ("10.0.0.7", now, now + 5 * HOUR)
        [made, handed] = store.events(job.number)
        assert (made.state, made.left, made.seconds) == ("queued", "", 0)
        assert (handed.state, handed.left, handed.seconds) == ("init", "queued", 3600)

    def test_one_batch_hands_each_job_out_once(
        self, store: JobStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        store.enqueue([wanted(day) for day in (1, 2)], now=now)
        answers = store.apply([Next("p"), Next("q"), Next("r")], now=now)
        jobs = [job for job in answers if isinstance(job, Job)]
        assert [job.parser for job in jobs] == ["p", "q"]
        assert len({job.number for job in jobs}) == 2
        assert answers[2] == NoJob()


class TestApply:
    def test_a_batch_is_folded_in_its_order(
        self, store: JobStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        store.enqueue([wanted(1), wanted(2)], now=now)
        one, two = store.lease(2, now=now)
        answers = store.apply(
            [
                Update(one.id, "parsing", "first"),
                Heartbeat("nobody"),
                Update(two.id, "loading"),
                Update(one.id, "parsing", "-"),
                Update(one.id, "postProcessing"),
                Error(two.id, "no disk"),
                Heartbeat(two.id),
            ],
            now=now + HOUR,
        )
        assert [type(answer) for answer in answers] == [Job, Gone, BadState, Job, Job, Job, Gone]
        assert isinstance(answers[3], Job)
        assert answers[3].detail == "first"
        first, second = store.job(one.number), store.job(two.number)
        assert first is not None
        assert second is not None
        assert (first.state, first.detail, first.parsed) == (
            JobState.POST_PROCESSING,
            "",
            now + HOUR,
        )
        assert (second.state, second.attempt, second.error) == (JobState.QUEUED, 2, "no disk")
        assert [e.state for e in store.events(one.number)][2:] == ["parsing", "postProcessing"]

    def test_updates_of_files_are_no_events(
        self, store: JobStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        store.enqueue([wanted()], now=now)
        [job] = store.lease(1, now=now)
        store.apply([Update(job.id, "parsing", f"file {i}") for i in range(100)], now=now)
        store.apply([Update(job.id, "parsing", f"file {i}") for i in range(100)], now=now + HOUR)
        assert [e.state for e in store.events(job.number)] == ["queued", "init", "parsing"]
        kept = store.job(job.number)
        assert kept is not None
        assert (kept.detail, kept.entered, kept.updated) == ("file 99", now, now + HOUR)

    @pytest.mark.parametrize("text", ["\0", "\ud800", "'; DROP TABLE jobs; --", "ünïcödé 🌱"])
    def test_any_text_is_only_text(
        self, store: JobStore, wanted: Wanted, now: dt.datetime, text: str
    ) -> None:
        store.enqueue([wanted()], now=now)
        [job] = store.lease(1, parser=text, now=now)
        unknown, kept, ended = store.apply(
            [Heartbeat(text), Update(job.id, "parsing", text), Error(job.id, text)], now=now
        )
        assert isinstance(unknown, Gone)
        assert isinstance(kept, Job)
        assert isinstance(ended, Job)
        assert kept.detail == text.replace("\0", "\ufffd").replace("\ud800", "?")
        assert ended.error == kept.detail
        assert store.job(job.number) == ended

    def test_long_texts_are_cut(self, store: JobStore, wanted: Wanted, now: dt.datetime) -> None:
        store.enqueue([wanted()], now=now)
        [job] = store.lease(1, now=now)
        store.apply([Update(job.id, "parsing", "x" * 1_000_000)], now=now)
        store.apply([Error(job.id, "y" * 1_000_000)], now=now)
        kept = store.job(job.number)
        assert kept is not None
        assert kept.error == "y" * 2000
        assert {len(e.detail) for e in store.events(job.number)} <= {0, 2000}

    def test_nothing_is_half_done(
        self, store: JobStore, wanted: Wanted, now: dt.datetime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.enqueue([wanted(1), wanted(2)], now=now)
        one, _ = store.lease(2, now=now)
        before = store.jobs(limit=10)

        def fail(*_: object) -> None:
            raise OSError("disk full")

        monkeypatch.setattr("gardener_api.store.rows._insert_events", fail)
        with pytest.raises(OSError, match="disk full"):
            store.apply([Update(one.id, "parsing", "x"), Next()], now=now)
        assert store.jobs(limit=10) == before
