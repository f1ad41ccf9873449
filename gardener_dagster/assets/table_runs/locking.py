"""Which run works on a partition, and whether it still may: partition locks and the run's watch.

A lock lies in the job store. It ends when its date is done, or with its run: a run that died gives
nothing back, so whoever wants the partition asks Dagster whether the holder has ended.
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
"""Between two looks at whether a lock is still the run's."""
RUN_CHECK_SECONDS = 5.0
"""Between two looks at whether Dagster still has the run in progress."""


class RunStopped(RuntimeError):
    """The run is to stop now, or Dagster has ended it: its work must stop."""


class PartitionBusy(RuntimeError):
    """Another run has the partition and did not end in time.

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
    """Another run has taken the partition over, so this run must not write to it any more."""


class RunWatch:
    """Says whether a run must stop; all threads of a run share one.

    Args:
        instance: Dagster's.
        run_id: The run.
        warn: Gets what went wrong with a look, which is tried again.
    """

    def __init__(
        self, instance: dg.DagsterInstance, run_id: str, warn: Callable[[str], None]
    ) -> None:
        self._instance, self.run_id, self._warn = instance, run_id, warn
        self._looking = threading.Lock()
        self._next_look = time.monotonic() + RUN_CHECK_SECONDS
        self._cancelled = False
        self.stopping = threading.Event()
        """Set: no further date is begun."""
        self.aborted = threading.Event()
        """Set: the dates under way stop, too."""

    @property
    def cancelled(self) -> bool:
        """Whether a person cancels the run, or has, as far as Dagster was asked."""
        return self._cancelled

    def look(self) -> None:
        """Ask Dagster now whether the run is in progress; set the events if it is not."""
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
        """Have the dates under way stop, too."""
        self.stopping.set()
        self.aborted.set()

    def look_now_and_then(self) -> None:
        """As ``look``, but at most every ``RUN_CHECK_SECONDS``; one thread does it for all."""
        if time.monotonic() < self._next_look or not self._looking.acquire(blocking=False):
            return
        try:
            self._next_look = time.monotonic() + RUN_CHECK_SECONDS
            self.look()
        finally:
            self._looking.release()

    def raise_if_aborted(self) -> None:
        """Do nothing unless the run must stop, as far as is known.

        Raises:
            RunStopped: It may not.
        """
        if self.aborted.is_set():
            raise RunStopped(f"run {self.run_id} was stopped")

    def has_ended(self, run_id: str) -> bool:
        """Whether another run is over, or was deleted; False where Dagster cannot be asked."""
        try:
            run = self._instance.get_run_by_id(run_id)
        except SQLAlchemyError as error:
            self._warn(f"Dagster's storage does not answer: {one_line(error)}")
            return False
        return run is None or run.is_finished


class PartitionLock:
    """A partition that the run has to itself, as long as nobody takes it over."""

    def __init__(
        self, locks: PartitionLocks, table: str, date: dt.date, watch: RunWatch, *, taken_from: str
    ) -> None:
        self._locks, self._table, self._date, self._watch = locks, table, date, watch
        self.taken_from = taken_from
        """The run that ended without giving the partition back; empty: none."""
        self._next_check = time.monotonic() + LOCK_CHECK_SECONDS

    def check(self, *, ask_dagster: bool = False) -> None:
        """Do nothing where the run still has the partition, and is in progress.

        The lock is looked up each time. The run is looked up now and then: nobody else writes to
        the partition before another run has taken the lock.

        Args:
            ask_dagster: Look up the run now.

        Raises:
            PartitionLost: Another run has it.
            RunStopped: The run is to stop, or Dagster has ended it.
        """
        if ask_dagster:
            self._watch.look()
        else:
            self._watch.look_now_and_then()
        self._check()

    def guard(self) -> None:
        """As ``check``, but cheap: it looks only now and then. For ``JobContext.guard``."""
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
    """Hold a partition for the run while the body works on it.

    Args:
        locks: The locks.
        table: ``<dataset>.<table>``.
        date: The partition.
        watch: Of the run that wants it.
        warn: Gets what a person may want to know of the wait.

    Raises:
        PartitionBusy: Another run had it for longer than ``LOCK_WAIT``.
        RunStopped: The run is to stop, and does not wait any longer.
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
    """Take the partition; the run that it was taken from, since that had ended, or nothing."""
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
    """The time, where a step needs it."""
    return dt.datetime.now(dt.UTC)


def _working(lock: Lock) -> str:
    partition = _name(lock.table, lock.date)
    return f"run {lock.run_id} works on {partition} since {lock.since:%F %T} UTC"


def _name(table: str, date: dt.date) -> str:
    return f"{table}${date:%Y%m%d}"
