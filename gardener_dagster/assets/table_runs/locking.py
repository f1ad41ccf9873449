"""Which run works on a partition, and whether it still may: partition locks and the run's watch.

The locks are in the job store. A run releases its lock when the date is done. If a run dies without
releasing it, a waiting run learns from Dagster that the holder has ended, and takes over the lock.
"""

import datetime as dt
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dagster as dg
from dagster import DagsterRunStatus
from sqlalchemy.exc import SQLAlchemyError

from gardener_api.formatting import one_line
from gardener_api.store.schema import StoreError
from gardener_api.store.tables.partition_locks import Lock, PartitionLocks

LOCK_WAIT = dt.timedelta(hours=1)
"""How long a run waits for another's lock: longer than the tables of the largest date take."""
LOCK_POLL_SECONDS = 2.0
LOCK_CHECK_SECONDS = 1.0
"""Seconds between two checks that the run still holds a lock."""
RUN_CHECK_SECONDS = 5.0
"""Seconds between two checks that Dagster still has the run in progress."""


class RunStopped(RuntimeError):
    """The run must stop its work: it was cancelled or interrupted, or Dagster has ended it."""


class PartitionBusy(RuntimeError):
    """Another run holds the partition and did not end within ``LOCK_WAIT``.

    Attributes:
        run_id: The other run.
    """

    def __init__(self, lock: Lock) -> None:
        self.run_id = lock.run_id
        super().__init__(
            f"{_working(lock)}, and this run has waited {LOCK_WAIT} for it. What to do: see why"
            " that run does not end, terminate it if it hangs"
        )


class PartitionLost(RuntimeError):
    """The run no longer holds the partition's lock, so it must not write to the partition."""


class RunWatch:
    """Tells whether a run must stop; all threads of a run share one watch.

    Args:
        instance: The Dagster instance.
        run_id: The run.
        warn: Receives the error of a failed check; the next check repeats it.
    """

    def __init__(
        self, instance: dg.DagsterInstance, run_id: str, warn: Callable[[str], None]
    ) -> None:
        self._instance, self.run_id, self._warn = instance, run_id, warn
        self._looking = threading.Lock()
        self._next_look = time.monotonic() + RUN_CHECK_SECONDS
        self._cancelled = False
        self.stopping = threading.Event()
        """Set: no further date is started."""
        self.aborted = threading.Event()
        """Set: the dates in progress stop, too."""

    @property
    def cancelled(self) -> bool:
        """Whether the run was CANCELING or CANCELED in any check so far."""
        return self._cancelled

    def look(self) -> None:
        """Ask Dagster now for the run's status; set the events if it is cancelled or has ended."""
        try:
            run = self._instance.get_run_by_id(self.run_id)
        except SQLAlchemyError as error:
            self._warn(f"Dagster's storage does not answer: {one_line(error)}")
            return
        if run is not None and run.status in (
            DagsterRunStatus.CANCELING,
            DagsterRunStatus.CANCELED,
        ):
            self._cancelled = True
            self.stopping.set()
        if run is None or run.is_finished:
            self.abort()

    def abort(self) -> None:
        """Stop the run: start no further date and stop the dates in progress."""
        self.stopping.set()
        self.aborted.set()

    def look_now_and_then(self) -> None:
        """Call ``look`` at most every ``RUN_CHECK_SECONDS``; one thread does it for all."""
        if time.monotonic() < self._next_look or not self._looking.acquire(blocking=False):
            return
        try:
            self._next_look = time.monotonic() + RUN_CHECK_SECONDS
            self.look()
        finally:
            self._looking.release()

    def raise_if_aborted(self) -> None:
        """Raise an error if ``aborted`` is set; do not ask Dagster.

        Raises:
            RunStopped: The run must stop.
        """
        if self.aborted.is_set():
            raise RunStopped(f"run {self.run_id} was stopped")

    def has_ended(self, run_id: str) -> bool:
        """Whether another run has ended or was deleted; False if Dagster's storage fails."""
        try:
            run = self._instance.get_run_by_id(run_id)
        except SQLAlchemyError as error:
            self._warn(f"Dagster's storage does not answer: {one_line(error)}")
            return False
        return run is None or run.is_finished


class PartitionLock:
    """A partition's lock that the run holds, unless another run has taken it over."""

    def __init__(
        self, locks: PartitionLocks, table: str, date: dt.date, watch: RunWatch, *, taken_from: str
    ) -> None:
        self._locks, self._table, self._date, self._watch = locks, table, date, watch
        self.taken_from = taken_from
        """The ended run from which the lock was taken over; empty: none."""
        self._next_check = time.monotonic() + LOCK_CHECK_SECONDS

    def check(self, *, ask_dagster: bool = False) -> None:
        """Check that the run still holds the lock and is in progress.

        Every call reads the lock. The run's status is read only every ``RUN_CHECK_SECONDS``: no
        other run writes to the partition before it has taken over the lock.

        Args:
            ask_dagster: Read the run's status now.

        Raises:
            PartitionLost: The run no longer holds the lock.
            RunStopped: The run must stop, or Dagster has ended it.
        """
        if ask_dagster:
            self._watch.look()
        else:
            self._watch.look_now_and_then()
        self._check()

    def guard(self) -> None:
        """Check as ``check`` does, but read the lock only every ``LOCK_CHECK_SECONDS``."""
        self._watch.look_now_and_then()
        if time.monotonic() >= self._next_check:
            self._check()
        self._watch.raise_if_aborted()

    def _check(self) -> None:
        self._watch.raise_if_aborted()
        holder = self._locks.holder(self._table, self._date)
        if holder != self._watch.run_id:
            raise PartitionLost(
                f"{_name(self._table, self._date)} is run {holder}'s now: this run does not write"
                " to it any more. What to do: see what that run makes of it"
            )
        self._next_check = time.monotonic() + LOCK_CHECK_SECONDS


@contextmanager
def partition_lock(
    locks: PartitionLocks,
    table: str,
    date: dt.date,
    watch: RunWatch,
    *,
    warn: Callable[[str], None],
) -> Iterator[PartitionLock]:
    """Hold the lock of a partition while the body runs.

    Args:
        locks: The locks.
        table: ``<dataset>.<table>``.
        date: The partition.
        watch: Watch of the run that takes the lock.
        warn: Receives a warning if the run waits for another, or cannot release the lock.

    Raises:
        PartitionBusy: Another run held the lock for longer than ``LOCK_WAIT``.
        RunStopped: The run must stop while it waits.
    """
    taken_from = _take(locks, table, date, watch, warn)
    try:
        yield PartitionLock(locks, table, date, watch, taken_from=taken_from)
    finally:
        try:
            locks.release(table, date, run_id=watch.run_id)
        except StoreError as error:
            warn(f"the lock of {_name(table, date)} stays until the run ends: {error}")


def _take(
    locks: PartitionLocks, table: str, date: dt.date, watch: RunWatch, warn: Callable[[str], None]
) -> str:
    """Take the lock; return the ended run from which it was taken over, or an empty string."""
    give_up, waiting_for, ended = utc_now() + LOCK_WAIT, "", ""
    while True:
        lock = locks.take(table, date, run_id=watch.run_id, ended=ended, now=utc_now())
        if lock.run_id == watch.run_id:
            return ended
        if watch.has_ended(lock.run_id):
            ended = lock.run_id
            continue
        if utc_now() > give_up:
            raise PartitionBusy(lock)
        if waiting_for != lock.run_id:
            waiting_for = lock.run_id
            warn(f"{_working(lock)}: waiting for it to end")
        watch.stopping.wait(LOCK_POLL_SECONDS)
        watch.look_now_and_then()
        if watch.stopping.is_set():
            raise RunStopped(f"run {watch.run_id} was stopped while it waited for {lock.run_id}")


def utc_now() -> dt.datetime:
    """Return the current time in UTC."""
    return dt.datetime.now(dt.UTC)


def _working(lock: Lock) -> str:
    partition = _name(lock.table, lock.date)
    return f"run {lock.run_id} works on {partition} since {lock.since:%F %T} UTC"


def _name(table: str, date: dt.date) -> str:
    return f"{table}${date:%Y%m%d}"
