"""The folder of a stack's data: one stack at a time works in it."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def claim_home(home: Path) -> Iterator[Path]:
    """A folder that is this stack's alone while it runs.

    Args:
        home: The folder wanted. Where another stack is at work in it, a folder inside it is taken.

    Yields:
        The folder, absolute.
    """
    home = home.resolve()
    number = 1
    while True:
        folder = home if number == 1 else home / f"beside-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                number += 1
                continue
            yield folder
            return
