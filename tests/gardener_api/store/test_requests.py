"""Who wants a job: asking for it, joining it, taking it back."""

import datetime as dt
from collections.abc import Callable

from gardener_api.jobs.job import Job, JobKey, JobRequest, JobState, ParseReport, Priority
from gardener_api.jobs.parser_calls import Error, Gone, Update
from gardener_api.store.store import JobStore

Wanted = Callable[..., JobRequest]
MakeKey = Callable[..., JobKey]
OpenStore = Callable[..., JobStore]

HOUR = dt.timedelta(hours=1)


def done(store: JobStore, job: Job, now: dt.datetime) -> Job:
    [answer] = store.apply([Update(job.id, "postProcessing")], now=now)
    assert isinstance(answer, Job)
    return answer


def told(store: JobStore, requester: str = "run:a", run_id: str = "a") -> list[Job]:
    return [outcome.job for outcome in store.unreported(requester, run_id=run_id)]


class TestEnqueue:
    def test_makes_one_job_a_key(self, store: JobStore, wanted: Wanted, now: dt.datetime) -> None:
        jobs = store.enqueue([wanted(1), wanted(2), wanted(3)], now=now)
        assert [job.key.date.day for job in jobs] == [1, 2, 3]
        assert {job.state for job in jobs} == {JobState.QUEUED}
        assert jobs[0].id == "archive-mlab-oti/ndt/ndt7/20240301"
        assert [store.job(job.number) for job in jobs] == jobs

    def test_asking_for_an_open_job_attaches(
        self, store: JobStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        [first] = store.enqueue([wanted()], now=now)
        [second] = store.enqueue([wanted(requester="run:b")], now=now)
        assert second == first
        assert [r.requester for r in store.requests(first.number)] == ["run:a", "run:b"]

    def test_twice_in_one_call(self, store: JobStore, wanted: Wanted, now: dt.datetime) -> None:
        first, other, again = store.enqueue(
            [wanted(), wanted(2), wanted(requester="run:b")], now=now
        )
        assert again == first
        assert other != first
        assert len(store.requests(first.number)) == 2

    def test_a_thousand_at_once(self, store: JobStore, wanted: Wanted, now: dt.datetime) -> None:
        asks = [wanted(day) for day in range(1, 1001)]
        jobs = store.enqueue(asks, now=now)
        assert [job.key for job in jobs] == [ask.key for ask in asks]
        assert store.counts() == {JobState.QUEUED: 1000}
        assert len(store.open_keys([ask.key for ask in asks])) == 1000

    def test_priority_is_only_raised(
        self, store: JobStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        def ask(priority: Priority) -> Priority:
            [job] = store.enqueue([wanted(priority=priority)], now=now)
            assert store.job(job.number) == job
            return job.priority

        assert ask(Priority.BACKFILL) is Priority.BACKFILL
        assert ask(Priority.HISTORICAL) is Priority.BACKFILL
        assert ask(Priority.DAILY) is Priority.DAILY

    def test_a_day_without_archives_is_parsed_at_once(
        self, store: JobStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        [job] = store.enqueue([wanted(archives=0)], now=now)
        assert (job.state, job.parsed, job.detail) == (
            JobState.POST_PROCESSING,
            now,
            "no archive files",
        )
        assert store.lease(1, now=now) == []
        assert told(store) == [job]
        assert store.apply([Update(job.id, "postProcessing", "x")], now=now) == [Gone(job.id)]

    def test_a_new_wish_for_an_ended_job_is_a_new_generation(
        self, store: JobStore, wanted: Wanted, make_key: MakeKey, now: dt.datetime
    ) -> None:
        store.enqueue([wanted(archives=0)], now=now)
        store.stage(make_key(), JobState.LOADING, run_id="t", now=now)
        first = store.stage(make_key(), JobState.COMPLETE, run_id="t", now=now)
        [again] = store.enqueue([wanted()], now=now)
        assert again == first, "who asked for it before takes what there is"
        [other] = store.enqueue([wanted(requester="run:b")], now=now)
        assert (other.generation, other.state) == (2, JobState.QUEUED)
        assert other.id == "archive-mlab-oti/ndt/ndt7/20240301~2.1"
        assert store.latest(make_key()) == other

    def test_who_asked_for_a_failed_job_asks_anew(
        self, open_store: OpenStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        store = open_store(max_attempts=1)
        store.enqueue([wanted()], now=now)
        [job] = store.lease(1, now=now)
        store.apply([Error(job.id, "no disk")], now=now)
        [again] = store.enqueue([wanted()], now=now)
        assert (again.generation, again.state) == (2, JobState.QUEUED)

    def test_an_old_parse_whose_tables_are_repaired_is_not_what_others_want(
        self, store: JobStore, wanted: Wanted, make_key: MakeKey, now: dt.datetime
    ) -> None:
        [old] = store.enqueue([wanted(archives=0)], now=now)
        store.stage(make_key(), JobState.LOADING, run_id="t", now=now)
        store.stage(make_key(), JobState.COMPLETE, run_id="t", now=now)
        store.stage(make_key(), JobState.JOINING, run_id="later", now=now)
        [new] = store.enqueue([wanted(requester="run:b")], now=now)
        assert new.generation == 2
        replaced = store.job(old.number)
        assert replaced is not None
        assert replaced.state is JobState.WITHDRAWN
        # The run that repairs it finds that it has nothing to tell any more.
        assert store.stage(make_key(), JobState.COMPLETE, run_id="later", now=now) is None
        assert store.latest(make_key()) == new

    def test_asking_again_is_reported_again(
        self, store: JobStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        [job] = store.enqueue([wanted(archives=0)], now=now)
        store.mark_reported([job.number], run_id="a", now=now)
        assert told(store) == []
        store.enqueue([wanted(run_id="retry")], now=now)
        assert told(store, run_id="retry") == [job]
        [request] = store.requests(job.number)
        assert request.run_id == "retry"


class TestTakenOver:
    """A retry asks in the name of the run that it repeats: the requests are then its own."""

    def test_what_a_retry_asks_for_is_reported_to_it_alone(
        self, store: JobStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        one, two = store.enqueue([wanted(1, archives=0), wanted(2, archives=0)], now=now)
        store.enqueue([wanted(1, run_id="retry", archives=0)], now=now)
        assert told(store) == [two]
        assert told(store, run_id="retry") == [one]
        # The run that is repeated may be alive, and note its end a moment later.
        store.mark_reported([one.number, two.number], run_id="a", now=now)
        assert told(store, run_id="retry") == [one]

    def test_the_run_before_can_tell_who_has_it(
        self, store: JobStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        one, two = store.enqueue([wanted(1), wanted(2)], now=now)
        store.enqueue([wanted(1, run_id="retry")], now=now)
        store.enqueue([wanted(2, requester="run:b", run_id="b")], now=now)
        numbers = [one.number, two.number]
        found = store.taken_over("run:a", run_id="a", numbers=numbers)
        assert found == {one.number: "retry"}


class TestWithdraw:
    def test_d25_a_run_takes_back_only_what_it_asked_for_itself(
        self, store: JobStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        """A backfill of dates that are not consecutive is one requester, but several runs."""
        asks = [
            wanted(day, requester="backfill/b", backfill_id="b", run_id=run_id)
            for day, run_id in ((1, "one"), (2, "one"), (9, "nine"))
        ]
        first, second, ninth = store.enqueue(asks, now=now)
        taken_back = store.withdraw("one", by="a person, who cancelled run one", now=now)
        assert {job.number for job in taken_back} == {first.number, second.number}
        assert store.latest(ninth.key) == ninth
        assert told(store, "backfill/b", "nine") == []
        [leased] = store.lease(3, now=now)
        parsed = done(store, leased, now)
        assert told(store, "backfill/b", "nine") == [parsed]

    def test_d25_a_request_that_was_taken_back_from_outside_names_who_did_it(
        self, store: JobStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        mine, held = store.enqueue([wanted(2), wanted(1)], now=now)
        store.lease(1, now=now)
        store.withdraw("a", by="a person, at the console", now=now)
        outcomes = store.unreported("run:a", run_id="a")
        assert [outcome.job.number for outcome in outcomes] == [held.number, mine.number]
        assert {o.request.withdrawn_by for o in outcomes} == {"a person, at the console"}
        assert {o.request.withdrawn for o in outcomes} == {now}

    def test_d25_what_a_retry_has_taken_over_stays(
        self, store: JobStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        one, two = store.enqueue([wanted(1), wanted(2)], now=now)
        store.enqueue([wanted(1, run_id="retry")], now=now)
        assert [job.number for job in store.withdraw("a", by="x", now=now)] == [two.number]
        assert store.latest(one.key) == one

    def test_which_runs_still_wait_for_parsers(
        self, store: JobStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        asks = [wanted(day, requester=f"run:{day}", run_id=f"r{day}") for day in (1, 2, 3)]
        store.enqueue([*asks, wanted(4, run_id="empty", archives=0)], now=now)
        parsed, _ = store.lease(2, now=now)
        done(store, parsed, now)
        assert store.runs_waiting() == {"r2", "r3"}
        store.withdraw("r2", by="x", now=now)
        assert store.runs_waiting() == {"r3"}

    def test_only_what_nobody_else_wants(
        self, store: JobStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        mine, shared = store.enqueue([wanted(1), wanted(2)], now=now)
        store.enqueue([wanted(2, requester="run:b", run_id="b")], now=now)
        assert [job.number for job in store.withdraw("a", by="x", now=now)] == [mine.number]
        assert store.waiting("run:a") == {}
        assert store.waiting("run:b") == {JobState.QUEUED: 1}
        [withdrawn] = store.jobs(states={JobState.WITHDRAWN}, limit=10)
        assert (withdrawn.number, withdrawn.detail) == (mine.number, "withdrawn by x")
        assert [job.number for job in store.withdraw("b", by="x", now=now)] == [shared.number]

    def test_not_what_a_parser_holds(
        self, store: JobStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        store.enqueue([wanted()], now=now)
        [job] = store.lease(1, now=now)
        assert store.withdraw("a", by="x", now=now) == []
        assert done(store, job, now).state is JobState.POST_PROCESSING
        assert [item.requests for item in store.unreported_parses()] == [()]

    def test_what_comes_back_from_a_parser_unwanted(
        self, store: JobStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        store.enqueue([wanted(1), wanted(2)], now=now)
        silent, broken = store.lease(2, now=now)
        store.withdraw("a", by="x", now=now)
        store.apply([Error(broken.id, "no disk")], now=now)
        store.expire(now=now + 6 * HOUR)
        assert store.counts() == {JobState.WITHDRAWN: 2}
        assert [e.state for e in store.events(silent.number)][-3:] == [
            "leaseExpired",
            "queued",
            "withdrawn",
        ]

    def test_asking_again_after_it(self, store: JobStore, wanted: Wanted, now: dt.datetime) -> None:
        [job] = store.enqueue([wanted()], now=now)
        store.withdraw("a", by="x", now=now)
        [again] = store.enqueue([wanted()], now=now)
        assert (again.generation, again.state) == (2, JobState.QUEUED)
        assert again.number != job.number


class TestParseReports:
    """The sensor reports parsed jobs that no run waits for, and notes that a tick later."""

    def test_a_request_made_after_the_report_is_still_to_be_told(
        self, store: JobStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        [job] = store.enqueue([wanted(archives=0)], now=now)
        reports = [ParseReport.of(item) for item in store.unreported_parses()]
        store.enqueue([wanted(requester="run:b", run_id="b", archives=0)], now=now)
        store.enqueue([wanted(run_id="retry", archives=0)], now=now + HOUR)
        store.confirm_reports(reports, now=now + HOUR)
        assert store.unreported_parses() == []
        assert told(store, "run:b", "b") == [job]
        assert told(store, run_id="retry") == [job]

    def test_who_asked_before_it_is_told(
        self, store: JobStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        store.enqueue([wanted(archives=0)], now=now)
        reports = [ParseReport.of(item) for item in store.unreported_parses()]
        store.confirm_reports(reports, now=now + HOUR)
        assert store.unreported_parses() == []
        assert told(store) == []
