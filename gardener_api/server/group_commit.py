"""Group commit: parser calls that come at the same time share one transaction.

A commit waits for the disk, and parsers come in bursts. One thread does all calls that have come
while it was busy, in one transaction, and each caller is answered only after the commit. What a
call does is the store's; what an answer looks like is ``jobs_api``'.
"""

import asyncio
import datetime as dt
import logging
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from gardener_api.jobs.job import Job
from gardener_api.jobs.parser_calls import Call, Refusal

if TYPE_CHECKING:
    from gardener_api.store.store import JobStore

log = logging.getLogger(__name__)

MAX_BATCH = 256
"""Calls in one transaction: more would make the first of them wait for the last."""
MAX_WAITING = 20_000
"""Calls that wait; more are refused, so that memory stays bounded."""

Answer = Job | Refusal
Clock = Callable[[], dt.datetime]
Waiting = tuple[Call, "asyncio.Future[Answer]"]


class UnavailableError(RuntimeError):
    """The call was not done, as far as is known; it may be tried again."""


class GroupCommit:
    """The writer of a sidecar: one thread, between an event loop and the store."""

    def __init__(self, store: "JobStore", *, clock: Clock) -> None:
        """Make it; ``start`` begins the work.

        Args:
            store: Where calls are done.
            clock: The time, aware and UTC.
        """
        self._store = store
        self._clock = clock
        self._queue: SimpleQueue[Waiting | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="group commit", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gathered: list[Waiting] = []
        self._ended = asyncio.Event()
        self._waiting = 0
        self._open = False

    def check(self) -> str:
        """How it is, for people.

        Raises:
            UnavailableError: Calls are not taken.
        """
        if not self._open:
            raise UnavailableError("the sidecar is ending")
        if not self._thread.is_alive():
            raise UnavailableError("its thread has ended: restart the sidecar")
        return f"runs, {self._waiting} calls wait"

    def start(self) -> None:
        """Begin, for callers on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._open = True
        self._thread.start()

    async def close(self, *, timeout: float | None = None) -> None:
        """Do what was taken, take nothing more, and end the thread.

        Args:
            timeout: Seconds after which a store that does not answer is left alone, with the calls
                that it has not done; nobody was told that they were. ``None``: wait.
        """
        self._open = False
        self._hand_over()
        self._queue.put(None)
        try:
            async with asyncio.timeout(timeout):
                await self._ended.wait()
        except TimeoutError:
            log.exception("the store did not answer; %d calls were not done", self._waiting)

    def submit(self, call: Call) -> "asyncio.Future[Answer]":
        """Have a call done.

        Returns:
            A future of the answer, done after the commit; it raises ``UnavailableError`` if the
            transaction failed.

        Raises:
            UnavailableError: Too many calls wait, or the sidecar is ending.
        """
        if not self._open or self._loop is None:
            raise UnavailableError("the sidecar is ending")
        if self._waiting >= MAX_WAITING:
            raise UnavailableError(f"more than {MAX_WAITING} calls wait for the store")
        self._waiting += 1
        future: asyncio.Future[Answer] = self._loop.create_future()
        # Calls that came at once are handed over at once. One by one, the first would wake the
        # thread, and the two would take Python's lock from each other for the rest of them.
        if not self._gathered:
            self._loop.call_soon(self._hand_over)
        self._gathered.append((call, future))
        return future

    def _hand_over(self) -> None:
        for waiting in self._gathered:
            self._queue.put(waiting)
        self._gathered.clear()

    def _work(self) -> None:
        self._do_all()
        self._tell(self._ended.set)

    def _do_all(self) -> None:
        while batch := self._take():
            outcome: list[Answer] | UnavailableError
            try:
                outcome = self._store.apply([call for call, _ in batch], now=self._clock())
            except Exception:
                log.exception("a transaction of %d calls failed", len(batch))
                outcome = UnavailableError("the store failed; the log says why")
            self._tell(self._answer, batch, outcome)

    def _tell(self, callback: Callable[..., object], *arguments: object) -> None:
        assert self._loop is not None  # noqa: S101 - `start` set it before the thread
        # Closed: `close` has left this thread behind, and nobody waits for what it says.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *arguments)

    def _take(self) -> list[Waiting]:
        """All that waits, at most a batch; empty when there will be nothing more."""
        first = self._queue.get()
        batch = [] if first is None else [first]
        while batch and len(batch) < MAX_BATCH:
            try:
                item = self._queue.get_nowait()
            except Empty:
                break
            if item is None:
                self._queue.put(None)  # this batch first, then the end
                break
            batch.append(item)
        return batch

    def _answer(self, batch: list[Waiting], outcome: list[Answer] | UnavailableError) -> None:
        self._waiting -= len(batch)
        for i, (_, future) in enumerate(batch):
            if future.done():  # cancelled: its caller has gone
                continue
            if isinstance(outcome, UnavailableError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome[i])
