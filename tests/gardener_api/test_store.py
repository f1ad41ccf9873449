import datetime as dt
from collections.abc import Callable

import pytest

from gardener_api.calls import BadState, Error, Gone, Heartbeat, Next, NoJob, Update
from gardener_api.jobs import Ask, Job, JobKey, JobState, Priority, TransitionError
from gardener_api.queries import JobOrder
from gardener_api.store import JobStore

MakeAsk = Callable[..., Ask]
MakeKey = Callable[..., JobKey]
OpenStore = Callable[..., JobStore]

HOUR = dt.timedelta(hours=1)


def done(store: JobStore, job: Job, now: dt.datetime) -> Job:
    [answer] = store.apply([Update(job.id, "postProcessing")], now=now)
    assert isinstance(answer, Job)
    return answer


class TestEnqueue:
    def test_makes_one_job_a_key(
        self, store: JobStore, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        jobs = store.enqueue([make_ask(1), make_ask(2), make_ask(3)], now=now)
        assert [job.key.date.day for job in jobs] == [1, 2, 3]
        assert {job.state for job in jobs} == {JobState.QUEUED}
        assert jobs[0].id == "archive-mlab-oti/ndt/ndt7/20240301"
        assert [store.job(job.number) for job in jobs] == jobs

    def test_asking_for_an_open_job_attaches(
        self, store: JobStore, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        [first] = store.enqueue([make_ask()], now=now)
        [second] = store.enqueue([make_ask(requester="run:b")], now=now)
        assert second == first
        assert [r.requester for r in store.requests(first.number)] == ["run:a", "run:b"]

    def test_twice_in_one_call(self, store: JobStore, make_ask: MakeAsk, now: dt.datetime) -> None:
        first, other, again = store.enqueue(
            [make_ask(), make_ask(2), make_ask(requester="run:b")], now=now
        )
        assert again == first
        assert other != first
        assert len(store.requests(first.number)) == 2

    def test_a_thousand_at_once(self, store: JobStore, make_ask: MakeAsk, now: dt.datetime) -> None:
        asks = [make_ask(day) for day in range(1, 1001)]
        jobs = store.enqueue(asks, now=now)
        assert [job.key for job in jobs] == [ask.key for ask in asks]
        assert store.counts() == {JobState.QUEUED: 1000}
        assert len(store.open_keys([ask.key for ask in asks])) == 1000

    def test_priority_is_only_raised(
        self, store: JobStore, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        def ask(priority: Priority) -> Priority:
            [job] = store.enqueue([make_ask(priority=priority)], now=now)
            assert store.job(job.number) == job
            return job.priority

        assert ask(Priority.BACKFILL) is Priority.BACKFILL
        assert ask(Priority.HISTORICAL) is Priority.BACKFILL
        assert ask(Priority.DAILY) is Priority.DAILY

    def test_a_day_without_archives_is_parsed_at_once(
        self, store: JobStore, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        [job] = store.enqueue([make_ask(archives=0)], now=now)
        assert (job.state, job.parsed, job.detail) == (
            JobState.POST_PROCESSING,
            now,
            "no archive files",
        )
        assert store.lease(1, now=now) == []
        assert store.unreported("run:a") == [job]
        assert store.apply([Update(job.id, "postProcessing", "x")], now=now) == [Gone(job.id)]

    def test_a_new_wish_for_an_ended_job_is_a_new_generation(
        self, store: JobStore, make_ask: MakeAsk, make_key: MakeKey, now: dt.datetime
    ) -> None:
        store.enqueue([make_ask(archives=0)], now=now)
        store.stage(make_key(), JobState.LOADING, run_id="t", now=now)
        first = store.stage(make_key(), JobState.COMPLETE, run_id="t", now=now)
        [again] = store.enqueue([make_ask()], now=now)
        assert again == first, "who asked for it before takes what there is"
        [other] = store.enqueue([make_ask(requester="run:b")], now=now)
        assert (other.generation, other.state) == (2, JobState.QUEUED)
        assert other.id == "archive-mlab-oti/ndt/ndt7/20240301~2.1"
        assert store.latest(make_key()) == other

    def test_who_asked_for_a_failed_job_asks_anew(
        self, open_store: OpenStore, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        store = open_store(max_attempts=1)
        store.enqueue([make_ask()], now=now)
        [job] = store.lease(1, now=now)
        store.apply([Error(job.id, "no disk")], now=now)
        [again] = store.enqueue([make_ask()], now=now)
        assert (again.generation, again.state) == (2, JobState.QUEUED)

    def test_an_old_parse_whose_tables_are_repaired_is_not_what_others_want(
        self, store: JobStore, make_ask: MakeAsk, make_key: MakeKey, now: dt.datetime
    ) -> None:
        [old] = store.enqueue([make_ask(archives=0)], now=now)
        store.stage(make_key(), JobState.LOADING, run_id="t", now=now)
        store.stage(make_key(), JobState.COMPLETE, run_id="t", now=now)
        store.stage(make_key(), JobState.JOINING, run_id="later", now=now)
        [new] = store.enqueue([make_ask(requester="run:b")], now=now)
        assert new.generation == 2
        replaced = store.job(old.number)
        assert replaced is not None
        assert replaced.state is JobState.WITHDRAWN
        # The run that repairs it finds that it has nothing to tell any more.
        assert store.stage(make_key(), JobState.COMPLETE, run_id="later", now=now) is None
        assert store.latest(make_key()) == new

    def test_asking_again_is_reported_again(
        self, store: JobStore, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        [job] = store.enqueue([make_ask(archives=0)], now=now)
        store.mark_reported([job.number], requester="run:a", now=now)
        assert store.unreported("run:a") == []
        store.enqueue([make_ask(run_id="retry")], now=now)
        assert store.unreported("run:a") == [job]
        [request] = store.requests(job.number)
        assert request.run_id == "retry"


class TestWithdraw:
    def test_only_what_nobody_else_wants(
        self, store: JobStore, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        mine, shared = store.enqueue([make_ask(1), make_ask(2)], now=now)
        store.enqueue([make_ask(2, requester="run:b")], now=now)
        assert [job.number for job in store.withdraw("run:a", now=now)] == [mine.number]
        assert store.waiting("run:a") == {}
        assert store.waiting("run:b") == {JobState.QUEUED: 1}
        [withdrawn] = store.jobs(states={JobState.WITHDRAWN}, limit=10)
        assert withdrawn.number == mine.number
        assert [job.number for job in store.withdraw("run:b", now=now)] == [shared.number]

    def test_not_what_a_parser_holds(
        self, store: JobStore, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        store.enqueue([make_ask()], now=now)
        [job] = store.lease(1, now=now)
        assert store.withdraw("run:a", now=now) == []
        assert done(store, job, now).state is JobState.POST_PROCESSING
        assert [item.requests for item in store.unannounced()] == [()]

    def test_what_comes_back_from_a_parser_unwanted(
        self, store: JobStore, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        store.enqueue([make_ask(1), make_ask(2)], now=now)
        silent, broken = store.lease(2, now=now)
        store.withdraw("run:a", now=now)
        store.apply([Error(broken.id, "no disk")], now=now)
        store.expire(now=now + 6 * HOUR)
        assert store.counts() == {JobState.WITHDRAWN: 2}
        assert [e.state for e in store.events(silent.number)][-3:] == [
            "leaseExpired",
            "queued",
            "withdrawn",
        ]

    def test_asking_again_after_it(
        self, store: JobStore, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        [job] = store.enqueue([make_ask()], now=now)
        store.withdraw("run:a", now=now)
        [again] = store.enqueue([make_ask()], now=now)
        assert (again.generation, again.state) == (2, JobState.QUEUED)
        assert again.number != job.number


class TestNext:
    def test_order(self, store: JobStore, make_ask: MakeAsk, now: dt.datetime) -> None:
        store.enqueue(
            [
                make_ask(1, priority=Priority.HISTORICAL),
                make_ask(4, priority=Priority.BACKFILL),
                make_ask(3, priority=Priority.BACKFILL, rank=2),
                make_ask(
                    key=make_ask(3).key.__class__.parse("b/ndt/annotation2/20240303"),
                    priority=Priority.BACKFILL,
                    rank=1,
                ),
                make_ask(9, priority=Priority.DAILY),
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

    def test_a_lease(self, store: JobStore, make_ask: MakeAsk, now: dt.datetime) -> None:
        store.enqueue([make_ask()], now=now - HOUR)
        [job] = store.lease(1, parser="10.0.0.7", now=now)
        assert job.state is JobState.INIT
        assert (job.parser, job.leased, job.lease_expires) == ("10.0.0.7", now, now + 5 * HOUR)
        [made, handed] = store.events(job.number)
        assert (made.state, made.left, made.seconds) == ("queued", "", 0)
        assert (handed.state, handed.left, handed.seconds) == ("init", "queued", 3600)

    def test_one_batch_hands_each_job_out_once(
        self, store: JobStore, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        store.enqueue([make_ask(day) for day in (1, 2)], now=now)
        answers = store.apply([Next("p"), Next("q"), Next("r")], now=now)
        jobs = [job for job in answers if isinstance(job, Job)]
        assert [job.parser for job in jobs] == ["p", "q"]
        assert len({job.number for job in jobs}) == 2
        assert answers[2] == NoJob()


class TestApply:
    def test_a_batch_is_folded_in_its_order(
        self, store: JobStore, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        store.enqueue([make_ask(1), make_ask(2)], now=now)
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
        self, store: JobStore, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        store.enqueue([make_ask()], now=now)
        [job] = store.lease(1, now=now)
        store.apply([Update(job.id, "parsing", f"file {i}") for i in range(100)], now=now)
        store.apply([Update(job.id, "parsing", f"file {i}") for i in range(100)], now=now + HOUR)
        assert [e.state for e in store.events(job.number)] == ["queued", "init", "parsing"]
        kept = store.job(job.number)
        assert kept is not None
        assert (kept.detail, kept.entered, kept.updated) == ("file 99", now, now + HOUR)

    @pytest.mark.parametrize("text", ["\0", "\ud800", "'; DROP TABLE jobs; --", "ünïcödé 🌱"])
    def test_any_text_is_only_text(
        self, store: JobStore, make_ask: MakeAsk, now: dt.datetime, text: str
    ) -> None:
        store.enqueue([make_ask()], now=now)
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

    def test_long_texts_are_cut(self, store: JobStore, make_ask: MakeAsk, now: dt.datetime) -> None:
        store.enqueue([make_ask()], now=now)
        [job] = store.lease(1, now=now)
        store.apply([Update(job.id, "parsing", "x" * 1_000_000)], now=now)
        store.apply([Error(job.id, "y" * 1_000_000)], now=now)
        kept = store.job(job.number)
        assert kept is not None
        assert kept.error == "y" * 2000
        assert {len(e.detail) for e in store.events(job.number)} <= {0, 2000}

    def test_nothing_is_half_done(
        self, store: JobStore, make_ask: MakeAsk, now: dt.datetime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.enqueue([make_ask(1), make_ask(2)], now=now)
        one, _ = store.lease(2, now=now)
        before = store.jobs(limit=10)

        def fail(*_: object) -> None:
            raise OSError("disk full")

        monkeypatch.setattr("gardener_api.rows._insert_events", fail)
        with pytest.raises(OSError, match="disk full"):
            store.apply([Update(one.id, "parsing", "x"), Next()], now=now)
        assert store.jobs(limit=10) == before


class TestTables:
    def test_a_whole_life(
        self, store: JobStore, make_ask: MakeAsk, make_key: MakeKey, now: dt.datetime
    ) -> None:
        store.enqueue([make_ask()], now=now)
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
        self, store: JobStore, make_ask: MakeAsk, make_key: MakeKey, now: dt.datetime
    ) -> None:
        store.enqueue([make_ask(archives=0)], now=now)
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
        self, store: JobStore, make_ask: MakeAsk, make_key: MakeKey, now: dt.datetime
    ) -> None:
        [job] = store.enqueue([make_ask(archives=0)], now=now)
        assert store.fail_stage(make_key(), "x", run_id="t", now=now) is None
        assert store.fail_stage(make_key(), "x", run_id="t", number=99, now=now) is None
        failed = store.fail_stage(make_key(), "x", run_id="t", number=job.number, now=now)
        assert failed is not None
        assert failed.failed_in is JobState.POST_PROCESSING

    def test_a_run_on_an_older_parse_does_not_take_a_newer_one(
        self, store: JobStore, make_ask: MakeAsk, make_key: MakeKey, now: dt.datetime
    ) -> None:
        store.enqueue([make_ask(archives=0)], now=now)
        store.stage(make_key(), JobState.LOADING, run_id="t", now=now)
        store.stage(make_key(), JobState.COMPLETE, run_id="t", now=now)
        store.stage(make_key(), JobState.DEDUPLICATING, run_id="old", now=now)
        [new] = store.enqueue([make_ask(archives=0, requester="run:b")], now=now)
        for state in (JobState.COPYING, JobState.JOINING, JobState.COMPLETE):
            assert store.stage(make_key(), state, run_id="old", now=now) is None
        assert store.fail_stage(make_key(), "x", run_id="old", now=now) is None
        assert [item.job for item in store.parsed_jobs()] == [new]

    def test_no_job(self, store: JobStore, make_key: MakeKey, now: dt.datetime) -> None:
        assert store.stage(make_key(), JobState.LOADING, run_id="t", now=now) is None
        assert store.fail_stage(make_key(), "x", run_id="t", now=now) is None

    def test_stages_are_stages(
        self, store: JobStore, make_ask: MakeAsk, make_key: MakeKey, now: dt.datetime
    ) -> None:
        store.enqueue([make_ask(archives=0)], now=now)
        with pytest.raises(TransitionError, match="queued is no stage"):
            store.stage(make_key(), JobState.QUEUED, run_id="t", now=now)
        store.stage(make_key(), JobState.LOADING, run_id="t", now=now)
        store.stage(make_key(), JobState.COMPLETE, run_id="t", now=now)
        with pytest.raises(TransitionError, match="complete to copying: expected one of"):
            store.stage(make_key(), JobState.COPYING, run_id="t", now=now)


class TestFacts:
    def test_unreported_is_what_can_be_told(
        self, open_store: OpenStore, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        store = open_store(max_attempts=1)
        store.enqueue([make_ask(day) for day in (1, 2, 3, 4)], now=now)
        store.enqueue([make_ask(1, requester="run:b")], now=now)
        one, two, three = store.lease(3, now=now)
        assert store.unreported("run:a") == []
        done(store, one, now)
        store.apply([Error(two.id, "no disk")], now=now)
        assert [job.number for job in store.unreported("run:a")] == [one.number, two.number]
        assert [job.number for job in store.unreported("run:b")] == [one.number]
        store.mark_reported([one.number, two.number], requester="run:a", now=now)
        assert store.unreported("run:a") == []
        assert [job.number for job in store.unreported("run:b")] == [one.number]
        assert store.waiting("run:a") == {
            JobState.POST_PROCESSING: 1,
            JobState.FAILED: 1,
            JobState.INIT: 1,
            JobState.QUEUED: 1,
        }
        assert three.state is JobState.INIT

    def test_unannounced_is_what_nobody_was_told(
        self, store: JobStore, make_ask: MakeAsk, make_key: MakeKey, now: dt.datetime
    ) -> None:
        store.enqueue([make_ask(1), make_ask(2, archives=0), make_ask(3, archives=0)], now=now)
        store.stage(make_key(3), JobState.LOADING, run_id="t", now=now)
        store.stage(make_key(3), JobState.COMPLETE, run_id="t", now=now)
        two, three = (item.job for item in store.unannounced())
        assert (two.key, three.key) == (make_key(2), make_key(3))
        assert [item.job for item in store.parsed_jobs()] == [two]
        store.mark_reported([two.number], requester="run:a", now=now)
        assert [item.job for item in store.unannounced()] == [three]
        store.mark_reported([three.number], requester=None, now=now)
        assert store.unannounced() == []
        # Told once is told: asking again does not take it back.
        store.enqueue([make_ask(3)], now=now)
        assert store.unannounced() == []

    def test_parsed_jobs_tell_who_wants_them(
        self, store: JobStore, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        store.enqueue(
            [make_ask(archives=0, backfill_id="bf", covers_tables=True, requester="backfill:bf")],
            now=now,
        )
        [item] = store.parsed_jobs()
        [request] = item.requests
        assert (request.requester, request.backfill_id, request.covers_tables) == (
            "backfill:bf",
            "bf",
            True,
        )
        assert (request.asked, request.reported) == (now, None)

    def test_filters_of_the_list(
        self, store: JobStore, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        other = JobKey.parse("archive-mlab-oti/wehe/annotation2/20240301")
        store.enqueue([make_ask(1), make_ask(2), make_ask(key=other)], now=now)
        [one, _] = store.lease(2, now=now + HOUR)
        store.apply([Update(one.id, "parsing", "100%_done")], now=now + HOUR)

        def found(**wanted: object) -> list[str]:
            return [str(job.key) for job in store.jobs(**{"limit": 10} | wanted)]  # type: ignore[arg-type]  # any filter

        assert len(found()) == 3
        assert found(experiment="wehe") == [str(other)]
        assert found(datatype="ndt7", last=dt.date(2024, 3, 1)) == [str(one.key)]
        assert found(states={JobState.PARSING}) == [str(one.key)]
        assert found(states=set()) == []
        assert found(text="100%_DONE") == [str(one.key)]
        assert found(text="100__done") == []
        assert found(text="WEHE") == [str(other)]
        assert found(order=JobOrder.DATE, limit=1) == ["archive-mlab-oti/ndt/ndt7/20240302"]
        assert found(order=JobOrder.NEXT, limit=10, offset=2) == [
            "archive-mlab-oti/ndt/ndt7/20240302"
        ]
