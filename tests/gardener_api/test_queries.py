"""What can be asked of a store without changing it."""

import datetime as dt
from collections.abc import Callable

from gardener_api.calls import Error, Update
from gardener_api.jobs import Ask, Job, JobKey, JobState
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

    def test_parsed_jobs_of_backfills_that_make_the_tables_are_left_out(
        self, store: JobStore, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        asks = [
            make_ask(1, archives=0, requester="backfill/a", backfill_id="a", covers_tables=True),
            make_ask(2, archives=0, requester="backfill/a", backfill_id="a"),
            make_ask(3, archives=0, requester="backfill/b", backfill_id="b", covers_tables=True),
            make_ask(4, archives=0),
        ]
        jobs = store.enqueue(asks, now=now)

        def left(*backfills: str) -> list[int]:
            found = store.parsed_jobs(not_of=backfills)
            return [1 + jobs.index(item.job) for item in found]

        assert left() == [1, 2, 3, 4]
        assert left("a") == [2, 3, 4]
        assert left("a", "b") == [2, 4]
        # Somebody else who wants one leaves it the backfill's.
        store.enqueue([make_ask(1, archives=0, requester="run/x")], now=now)
        assert left("a", "b") == [2, 4]

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
