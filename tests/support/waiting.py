"""Waiting for what another process does, which tells nobody."""

import time
from collections.abc import Callable

SECONDS = 200.0
_PAUSE_SECONDS = 0.1


def until(condition: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
    """Wait until it is so.

    Args:
        condition: Looked at again and again.
        what: Is wrong if it never is.
        seconds: To wait at most.

    Raises:
        AssertionError: It was not so in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}, after {seconds:.0f} s"
        time.sleep(_PAUSE_SECONDS)
