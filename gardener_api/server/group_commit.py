"""Group commit: parser calls that come at the same time share one transaction.

A commit waits for the disk, and calls arrive in bursts. One thread executes all calls that arrived
while it was busy in one transaction, and callers are answered only after the commit. ``store``
applies the calls; ``jobs_api`` formats the answers.
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
"""Maximum calls in one transaction: in a larger one, the first call would wait for the last."""
MAX_WAITING = 20_000
"""Maximum number of waiting calls; more are rejected, to limit memory."""

Answer = Job | Refusal
Clock = Callable[[], dt.datetime]
Waiting = tuple[Call, "asyncio.Future[Answer]"]


class UnavailableError(RuntimeError):
    """The call may not have been executed; the caller may retry it."""


class GroupCommit:
    """The writer of a sidecar: one thread, between an event loop and the store."""

    def __init__(self, store: "JobStore", *, clock: Clock) -> None:
        """Create the writer; ``start`` starts its thread.

        Args:
            store: Applies the calls.
            clock: Returns the time, aware and UTC.
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
        """Return the state of the writer, for people.

        Raises:
            UnavailableError: The writer accepts no calls.
        """
        if not self._open:
            raise UnavailableError("the sidecar is ending")
        if not self._thread.is_alive():
            raise UnavailableError("its thread has ended: restart the sidecar")
        return f"runs, {self._waiting} calls wait"

    def start(self) -> None:
        """Start the thread, for callers on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._open = True
        self._thread.start()

    async def close(self, *, timeout: float | None = None) -> None:
        """Accept no more calls, execute the accepted ones, and end the thread.

        Args:
            timeout: Seconds to wait for the store; then the calls that it has not committed are
                abandoned without an answer. ``None``: no timeout.
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
        """Queue a call for the next transaction.

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
        # Calls of one turn of the event loop are handed over together. One by one, the first would
        # wake the thread, and both threads would contend for the GIL during the rest.
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
        # If the loop is closed, `close` has timed out, and no caller waits for an answer.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *arguments)

    def _take(self) -> list[Waiting]:
        """Wait for calls and return at most a batch; empty: the writer was closed."""
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
