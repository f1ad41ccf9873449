"""Waiting for what another process does, which tells nobody."""

import time
from collections.abc import Callable

SECONDS = 300.0
PAUSE_SECONDS = 0.1


def until(
    condition: Callable[[], object],
    what: str,
    seconds: float = SECONDS,
    *,
    pause: float = PAUSE_SECONDS,
) -> None:
    """Wait until it is so.

    Args:
        condition: Looked at again and again.
        what: Is wrong if it never is.
        seconds: To wait at most.
        pause: Seconds between two looks.

    Raises:
        AssertionError: It was not so in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}, after {seconds:.0f} s"
        time.sleep(pause)
