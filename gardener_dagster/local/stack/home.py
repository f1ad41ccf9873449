"""The folder of a stack's data: one stack at a time works in it."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

ENDING_SECONDS = 30.0
"""Seconds that a stack's processes have to end after their supervisor was killed."""
_POLL_SECONDS = 0.1


class HomeError(RuntimeError):
    """A folder cannot be created or written; the message says which and why."""


@dataclass(frozen=True, kw_only=True)
class Home:
    """A folder that is locked by one stack.

    Attributes:
        folder: Absolute path.
        lock: The file descriptor that holds its lock. The stack's watchdog holds it too, so that
            the folder is free only when all processes of the stack have ended.
    """

    folder: Path
    lock: int


@contextmanager
def claim_home(wanted: Path) -> Iterator[Home]:
    """Lock a folder for the exclusive use of this stack.

    Args:
        wanted: The folder. If another stack uses it, a folder inside it is locked instead. If the
            supervisor of that stack was killed, wait until its processes have ended.

    Yields:
        The locked folder.

    Raises:
        HomeError: The folder cannot be created or written.
    """
    root = wanted.resolve()
    number = 1
    while True:
        folder = root if number == 1 else root / f"beside-{number}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = (folder / ".lock").open("a+", encoding="ascii")
        except OSError as error:
            raise HomeError(
                f"--home {wanted}: {folder} cannot hold the stack's data: {error.strerror}."
                " Expected a folder that can be made or written"
            ) from error
        with lock:
            if not _take(lock):
                number += 1
                continue
            yield Home(folder=folder, lock=lock.fileno())
            return


def _take(lock: IO[str]) -> bool:
    """Take a lock unless a running supervisor holds it; return whether it was taken."""
    deadline = time.monotonic() + ENDING_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if _holder_lives(lock) or time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        else:
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
            return True


def _holder_lives(lock: IO[str]) -> bool:
    lock.seek(0)
    pid = lock.read().strip()
    # Empty: the holder has taken the lock, but has not written its pid yet.
    return not pid.isdecimal() or psutil.pid_exists(int(pid))
