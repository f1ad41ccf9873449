"""Ends the processes of a stack when their supervisor is gone, however it died.

A supervisor that is killed with SIGKILL cannot end what it started. So it starts a watchdog first
and holds the write end of a pipe to it: the operating system closes the pipe when the supervisor
dies. Every process of a stack has the stack's token in its environment. The watchdog finds them by
this token at any depth: Dagster's runs are grandchildren, and may have a session of their own.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable

import psutil

TOKEN_VARIABLE = "GARDENER_STACK"  # noqa: S105 - a name
"""The environment variable that marks the processes of one stack."""
TERM_SECONDS = 5.0
"""Seconds that processes have to end after SIGTERM, before SIGKILL."""
QUIET_SECONDS = 0.3
"""A stack has ended if no process was found for so many seconds: a process between ``fork`` and
``exec`` does not have its own environment yet, and is not found."""
_POLL_SECONDS = 0.05


class Watchdog:
    """A process that ends the processes of a stack when this process ends."""

    def __init__(self, token: str, keep_open: Iterable[int] = ()) -> None:
        """Start the watchdog.

        Args:
            token: The stack's token.
            keep_open: File descriptors that the watchdog holds until all processes of the stack
                have ended, such as the lock of the stack's folder.
        """
        read_end, self._write_end = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, token, str(read_end)],
                stdin=subprocess.DEVNULL,
                pass_fds=(read_end, *keep_open),
                start_new_session=True,  # it outlives a Ctrl-C and the terminal
            )
        finally:
            os.close(read_end)

    def close(self) -> None:
        """Make the watchdog end the remaining processes of the stack, and wait for its exit."""
        os.close(self._write_end)
        self._process.wait()

    def kill(self) -> None:
        """End the watchdog itself with SIGKILL; the stack stays up."""
        self._process.kill()
        self._process.wait()


def processes_of(token: str) -> list[psutil.Process]:
    """Find the living processes that carry a token."""
    return [process for process in psutil.process_iter() if _carries(process, token)]


def end_all(token: str, *numbers: signal.Signals) -> None:
    """Send signals to all processes that carry a token until none is left.

    Args:
        token: The stack's token.
        numbers: The signals, one after the other; the last is repeated.
    """
    for number in numbers[:-1]:
        _signal(processes_of(token), number)
        deadline = time.monotonic() + TERM_SECONDS
        while processes_of(token) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < QUIET_SECONDS:
        if found := processes_of(token):
            _signal(found, numbers[-1])
            quiet_since = time.monotonic()
        time.sleep(_POLL_SECONDS)


def _carries(process: psutil.Process, token: str) -> bool:
    try:
        has_token = process.environ().get(TOKEN_VARIABLE) == token
        return has_token and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):  # it has ended, or is another user's
        return False


def _signal(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def main(token: str, pipe: int) -> None:
    """Wait until the supervisor has ended, then end the remaining processes of the stack."""
    while os.read(pipe, 1):  # nothing is ever written: it returns when the pipe is closed
        pass
    end_all(token, signal.SIGTERM, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
