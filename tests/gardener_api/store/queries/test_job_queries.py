"""What can be asked of a store without changing it."""

import datetime as dt
from collections.abc import Callable
from typing import Any

from gardener_api.jobs.job import Job, JobKey, JobRequest, JobState, ParseReport
from gardener_api.jobs.parser_calls import Error, Update
from gardener_api.jobs.table_stages import ChainRule
from gardener_api.store.queries.job_queries import JobOrder
from gardener_api.store.store import JobStore

Wanted = Callable[..., JobRequest]
MakeKey = Callable[..., JobKey]
OpenStore = Callable[..., JobStore]

HOUR = dt.timedelta(hours=1)


def done(store: JobStore, job: Job, now: dt.datetime) -> Job:
    [answer] = store.apply([Update(job.id, "postProcessing")], now=now)
    assert isinstance(answer, Job)
    return answer


def told(store: JobStore, run_id: str) -> list[int]:
    return [o.job.number for o in store.unreported(f"run:{run_id}", run_id=run_id)]


class TestFacts:
    def test_unreported_is_what_can_be_told(
        self, open_store: OpenStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        store = open_store(max_attempts=1)
        store.enqueue([wanted(day) for day in (1, 2, 3, 4)], now=now)
        store.enqueue([wanted(1, requester="run:b")], now=now)
        one, two, three = store.lease(3, now=now)
        assert told(store, "a") == []
        done(store, one, now)
        store.apply([Error(two.id, "no disk")], now=now)
        assert told(store, "a") == [one.number, two.number]
        assert told(store, "b") == [one.number]
        store.mark_reported([one.number, two.number], run_id="a", now=now)
        assert told(store, "a") == []
        assert told(store, "b") == [one.number]
        assert store.waiting("run:a") == {
            JobState.POST_PROCESSING: 1,
            JobState.FAILED: 1,
            JobState.INIT: 1,
            JobState.QUEUED: 1,
        }
        assert three.state is JobState.INIT

    def test_a_chain_is_told_of_a_job_once_its_tables_have_ended(
        self, store: JobStore, wanted: Wanted, make_key: MakeKey, now: dt.datetime
    ) -> None:
        chain = {"backfill_id": "b", "covers_tables": True, "archives": 0}
        store.enqueue([wanted(1, **chain), wanted(2, **chain), wanted(3, **chain)], now=now)
        store.enqueue([wanted(4, archives=0)], now=now)  # of the same run, but no tables

        def dates_told(*, parsed_for: dt.timedelta, ended_for: dt.timedelta) -> list[int]:
            at = now + HOUR
            rule = ChainRule(ended_before=at - ended_for, parsed_before=at - parsed_for)
            outcomes = store.unreported("run:a", run_id="a", chain=rule)
            return [outcome.job.key.date.day for outcome in outcomes]

        assert dates_told(parsed_for=2 * HOUR, ended_for=HOUR / 2) == [4]
        for day in (1, 2):
            store.stage(make_key(day), JobState.LOADING, run_id="t", now=now)
        assert dates_told(parsed_for=2 * HOUR, ended_for=HOUR / 2) == [4]
        store.stage(make_key(1), JobState.COMPLETE, run_id="t", now=now)
        store.fail_stage(make_key(2), "no quota", run_id="t", now=now)
        assert dates_told(parsed_for=2 * HOUR, ended_for=HOUR / 2) == [1, 2, 4]
        assert dates_told(parsed_for=2 * HOUR, ended_for=2 * HOUR) == [4]
        assert dates_told(parsed_for=HOUR / 2, ended_for=2 * HOUR) == [1, 2, 3, 4]

    def test_what_a_live_run_reports_is_reported_by_nobody_else(
        self, store: JobStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        one, _ = store.enqueue([wanted(1, archives=0), wanted(2, archives=0)], now=now)
        store.enqueue([wanted(2, requester="run:b", run_id="b", archives=0)], now=now)
        assert store.runs_of_unreported_parses() == {"a", "b"}
        assert [item.job for item in store.unreported_parses(live_runs={"b"})] == [one]
        assert store.unreported_parses(live_runs={"a"}) == []
        store.withdraw("b", by="a person", now=now)
        assert store.runs_of_unreported_parses() == {"a"}
        assert len(store.unreported_parses(live_runs={"b"})) == 2

    def test_unreported_parses_are_what_nobody_was_told(
        self, store: JobStore, wanted: Wanted, make_key: MakeKey, now: dt.datetime
    ) -> None:
        store.enqueue([wanted(1), wanted(2, archives=0), wanted(3, archives=0)], now=now)
        store.stage(make_key(3), JobState.LOADING, run_id="t", now=now)
        store.stage(make_key(3), JobState.COMPLETE, run_id="t", now=now)
        two, three = (item.job for item in store.unreported_parses())
        assert (two.key, three.key) == (make_key(2), make_key(3))
        assert [item.job for item in store.parsed_jobs()] == [two]
        store.mark_reported([two.number], run_id="a", now=now)
        assert [item.job for item in store.unreported_parses()] == [three]
        store.confirm_reports([ParseReport.of(item) for item in store.unreported_parses()], now=now)
        assert store.unreported_parses() == []
        # Told once is told: asking again does not take it back.
        store.enqueue([wanted(3)], now=now)
        assert store.unreported_parses() == []

    def test_parsed_jobs_tell_who_wants_them(
        self, store: JobStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        store.enqueue(
            [wanted(archives=0, backfill_id="bf", covers_tables=True, requester="backfill:bf")],
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

    def test_parsed_jobs_are_found_by_date_and_number(
        self, store: JobStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        jobs = store.enqueue([wanted(day, archives=0) for day in (1, 2, 3)], now=now)
        second = jobs[1].key.date

        def found(**filters: Any) -> list[int]:
            return [1 + jobs.index(item.job) for item in store.parsed_jobs(**filters)]

        assert found() == [1, 2, 3]
        assert found(first=second) == [2, 3]
        assert found(before=second) == [1]
        assert found(limit=2) == [1, 2]

    def test_who_took_a_request_back_is_known_of_a_parsed_job(
        self, store: JobStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        [job] = store.enqueue([wanted(1, archives=0, run_id="r")], now=now)
        store.withdraw("r", by="a person", now=now)
        [item] = store.parsed_jobs()
        assert item.requests == ()
        assert list(item.withdrawn) == store.requests_of([job.number])[job.number]

    def test_filters_of_the_list(self, store: JobStore, wanted: Wanted, now: dt.datetime) -> None:
        other = JobKey.parse("archive-mlab-oti/wehe/annotation2/20240301")
        store.enqueue([wanted(1), wanted(2), wanted(key=other)], now=now)
        [one, _] = store.lease(2, now=now + HOUR)
        store.apply([Update(one.id, "parsing", "100%_done")], now=now + HOUR)

        def found(**filters: object) -> list[str]:
            return [str(job.key) for job in store.jobs(**{"limit": 10} | filters)]  # type: ignore[arg-type]  # any filter

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
