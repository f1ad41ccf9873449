import asyncio
import datetime as dt
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from gardener_api.jobs.job import Job, JobRequest, JobState
from gardener_api.jobs.parser_calls import Call, Gone, Heartbeat, Next, Update
from gardener_api.server import group_commit as commits_module
from gardener_api.server.group_commit import GroupCommit, UnavailableError
from gardener_api.store.store import JobStore

Wanted = Callable[..., JobRequest]
SECONDS = 20.0


class HeldStore:
    """A store that does a batch only when it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[Call]] = []
        self.began = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.failure: Exception | None = None

    def apply(self, calls: Sequence[Call], *, now: dt.datetime) -> list[Gone]:
        self.batches.append(list(calls))
        self.began.release()
        assert self.go.acquire(timeout=SECONDS)
        if self.failure:
            raise self.failure
        return [Gone(str(i)) for i, _ in enumerate(calls)]


@pytest.fixture
def held() -> HeldStore:
    return HeldStore()


def during(
    store: Any,
    now: dt.datetime,
    work: Callable[[GroupCommit], Coroutine[Any, Any, None]],
) -> None:
    async def main() -> None:
        commits = GroupCommit(store, clock=lambda: now)
        commits.start()
        try:
            async with asyncio.timeout(SECONDS):
                await work(commits)
        finally:
            await commits.close()

    asyncio.run(main())


async def began(held: HeldStore) -> None:
    assert await asyncio.to_thread(held.began.acquire, timeout=SECONDS)


def test_what_comes_during_a_commit_is_the_next_batch(held: HeldStore, now: dt.datetime) -> None:
    async def work(commits: GroupCommit) -> None:
        first = commits.submit(Heartbeat("first"))
        await began(held)
        others = [commits.submit(Heartbeat(f"other {i}")) for i in range(10)]
        await asyncio.sleep(0)
        assert not first.done(), "nobody is answered before the commit"
        held.go.release()
        await first
        await began(held)
        assert not any(other.done() for other in others)
        held.go.release()
        assert await asyncio.gather(*others) == [Gone(str(i)) for i in range(10)]
        assert [len(batch) for batch in held.batches] == [1, 10]

    during(held, now, work)


def test_a_batch_has_its_bound(
    held: HeldStore, now: dt.datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits_module, "MAX_BATCH", 4)

    async def work(commits: GroupCommit) -> None:
        held.go.release(4)
        first = commits.submit(Heartbeat("0"))
        await first
        others = [commits.submit(Heartbeat(str(i))) for i in range(1, 10)]
        await asyncio.gather(*others)
        assert max(len(batch) for batch in held.batches) <= 4
        done = [call.id for batch in held.batches for call in batch if isinstance(call, Heartbeat)]
        assert done == [str(i) for i in range(10)], "in the order in which they came"

    held.go.release(20)
    during(held, now, work)


def test_a_failure_reaches_every_caller_of_the_batch_and_no_other(
    held: HeldStore, now: dt.datetime, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(commits: GroupCommit) -> None:
        held.failure = OSError("disk full")
        first = commits.submit(Heartbeat("a"))
        await began(held)
        others = [commits.submit(Heartbeat(x)) for x in "bc"]
        held.go.release(2)
        outcomes = await asyncio.gather(first, *others, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [UnavailableError] * 3
        assert "disk full" in caplog.text
        held.failure = None
        held.go.release()
        assert await commits.submit(Heartbeat("d")) == Gone("0")

    during(held, now, work)


def test_too_many_are_refused(
    held: HeldStore, now: dt.datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits_module, "MAX_WAITING", 3)

    async def work(commits: GroupCommit) -> None:
        taken = [commits.submit(Heartbeat(x)) for x in "abc"]
        with pytest.raises(UnavailableError, match="more than 3 calls wait"):
            commits.submit(Heartbeat("d"))
        held.go.release(3)
        await asyncio.gather(*taken)
        held.go.release()
        await commits.submit(Heartbeat("e"))

    during(held, now, work)


def test_the_end_finishes_what_was_taken(held: HeldStore, now: dt.datetime) -> None:
    async def work(commits: GroupCommit) -> None:
        first = commits.submit(Heartbeat("first"))
        await began(held)
        second = commits.submit(Heartbeat("second"))
        held.go.release(2)
        await commits.close()
        await asyncio.sleep(0)
        assert (await first, await second) == (Gone("0"), Gone("0"))
        with pytest.raises(UnavailableError, match="ending"):
            commits.check()
        with pytest.raises(UnavailableError, match="ending"):
            commits.submit(Heartbeat("third"))

    during(held, now, work)


def test_a_caller_that_went_away_is_in_nobodys_way(held: HeldStore, now: dt.datetime) -> None:
    async def work(commits: GroupCommit) -> None:
        first, second = commits.submit(Heartbeat("a")), commits.submit(Heartbeat("b"))
        first.cancel()
        held.go.release(2)
        assert isinstance(await second, Gone)

    during(held, now, work)


def test_on_a_store(store: JobStore, wanted: Wanted, now: dt.datetime) -> None:
    store.enqueue([wanted(day) for day in range(1, 31)], now=now)

    async def parser(commits: GroupCommit, name: str) -> int:
        count = 0
        while isinstance(job := await commits.submit(Next(name)), Job):
            assert job.parser == name
            for state in ("parsing", "parsing", "postProcessing"):
                answer = await commits.submit(Update(job.id, state, name))
                assert isinstance(answer, Job)
            count += 1
        return count

    async def work(commits: GroupCommit) -> None:
        counts = await asyncio.gather(*(parser(commits, f"p{i}") for i in range(8)))
        assert sum(counts) == 30

    during(store, now, work)
    assert store.counts() == {JobState.POST_PROCESSING: 30}
