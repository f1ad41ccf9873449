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
"""How long the processes of a stack whose supervisor was killed may take to end."""
_POLL_SECONDS = 0.1


class HomeError(RuntimeError):
    """A folder cannot hold a stack's data; the message says which and why."""


@dataclass(frozen=True, kw_only=True)
class Home:
    """A folder that one stack has for itself.

    Attributes:
        folder: Absolute.
        lock: The file descriptor that holds its lock. The stack's watchdog holds it too, so that
            the folder is free only when all processes of the stack have ended.
    """

    folder: Path
    lock: int


@contextmanager
def claim_home(wanted: Path) -> Iterator[Home]:
    """Hold a folder that is this stack's alone.

    Args:
        wanted: The folder. Where another stack works in it, a folder inside it is taken. Where the
            supervisor of that stack was killed, this waits until its processes have ended.

    Yields:
        The folder.

    Raises:
        HomeError: The folder cannot be made or written.
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
    """Take a lock unless a living supervisor has it."""
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
    # Empty: the holder has taken the lock, and is about to write.
    return not pid.isdecimal() or psutil.pid_exists(int(pid))
