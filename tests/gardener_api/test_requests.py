"""Who wants a job: asking for it, joining it, taking it back."""

import datetime as dt
from collections.abc import Callable

from gardener_api.calls import Error, Gone, Update
from gardener_api.jobs import Ask, Job, JobKey, JobState, Priority
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
