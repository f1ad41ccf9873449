"""Child processes: started together, watched, ended together. Knows nothing of what they do.

Each has its own session, so that a signal also reaches the processes that it started, such as the
code server's runs. A watchdog ends all of them if this process is killed.
"""

import os
import secrets
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Self

from gardener_dagster.local.stack.watchdog import TOKEN_VARIABLE, Watchdog, end_all

LAST_LINES = 25
STOP_SECONDS = 10.0


class PartFailedError(RuntimeError):
    """A part ended, or was not ready in time; the message has the last lines of its log."""

    def __init__(self, part: "Part", what: str) -> None:
        self.part = part
        lines = "\n".join(f"  | {line}" for line in part.last_lines()) or "  | (nothing)"
        super().__init__(f"{part.name} {what}. The last lines of {part.log}:\n{lines}")


@dataclass(kw_only=True)
class Part:
    """One process of the stack.

    Attributes:
        name: Its name, for lookup and display.
        command: The program and its arguments.
        environment: Its complete environment.
        log: The file that its output is appended to.
        alive_url: An http URL that answers with a status below 500 when the part is ready, or a
            tcp://host:port that accepts connections then; empty: it is ready once started.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    alive_url: str = ""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start the process."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def exit_code(self) -> int | None:
        """The exit code; ``None`` if the process is running or was not started."""
        return None if self.process is None else self.process.poll()

    def answers(self) -> bool:
        """Return whether the part is ready."""
        if not self.alive_url:
            return self.process is not None
        url = urllib.parse.urlsplit(self.alive_url)
        try:
            if url.scheme == "tcp":
                with socket.create_connection((url.hostname, url.port), timeout=2):
                    return True
            with urllib.request.urlopen(self.alive_url, timeout=2):  # noqa: S310 - our own http URL
                return True
        except urllib.error.HTTPError as error:
            return error.code < 500
        except OSError:
            return False

    def last_lines(self) -> list[str]:
        """Return the last lines of its log."""
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        return text.splitlines()[-LAST_LINES:]

    def signal(self, number: int) -> None:
        """Send a signal to the process group."""
        if self.process is not None:
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                return

    def group_is_gone(self) -> bool:
        """Return whether all processes of the process group have ended."""
        if self.process is None:
            return True
        self.process.poll()  # reaps the process; otherwise the group would remain
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return True
        return False


class Processes:
    """The parts of a stack, as a context manager that ends all of them on exit."""

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        keep_open: Sequence[int] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare the parts. Nothing is started yet.

        Args:
            parts: The parts, in the order in which they start.
            keep_open: File descriptors that stay open until all processes have ended, also when
                this process is killed.
            clock: Seconds, as ``time.monotonic``.
        """
        self.parts = list(parts)
        self._token = secrets.token_hex(8)
        for part in self.parts:
            part.environment = {**part.environment, TOKEN_VARIABLE: self._token}
        self._keep_open = keep_open
        self._clock = clock
        self._watchdog: Watchdog | None = None

    def __enter__(self) -> Self:
        self._watchdog = Watchdog(self._token, self._keep_open)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            if self._watchdog is not None:
                self._watchdog.close()

    def part(self, name: str) -> Part:
        """Return the part with this name."""
        return next(part for part in self.parts if part.name == name)

    def start(self, *names: str) -> None:
        """Start the named parts, or all."""
        for part in self.parts:
            if (not names or part.name in names) and part.process is None:
                part.start()

    def wait_until_ready(
        self, *names: str, timeout: float = 120.0, seen: Callable[[Part], None] = lambda _: None
    ) -> None:
        """Wait until the named parts, or all, are ready.

        Args:
            names: Parts; none: all.
            timeout: Seconds.
            seen: Called with each part when it is ready.

        Raises:
            PartFailedError: A part ended, or was not ready in time.
        """
        missing = [p for p in self.parts if not names or p.name in names]
        deadline = self._clock() + timeout
        while missing:
            self.check()
            for part in [p for p in missing if p.answers()]:
                missing.remove(part)
                seen(part)
            if missing and self._clock() > deadline:
                raise PartFailedError(missing[0], f"did not answer within {timeout:.0f} s")
            if missing:
                time.sleep(0.1)

    def check(self) -> None:
        """Check that all started parts are running.

        Raises:
            PartFailedError: A part has ended.
        """
        for part in self.parts:
            if part.exit_code is not None:
                raise PartFailedError(part, f"ended with exit code {part.exit_code}")

    def stop(self) -> None:
        """End all parts with SIGTERM; with SIGKILL after ten seconds or a further interrupt."""
        try:
            if self._end(signal.SIGTERM):
                return
        except KeyboardInterrupt:
            pass
        with _ignoring(signal.SIGINT, signal.SIGTERM):  # must not be interrupted
            self._end(signal.SIGKILL)

    def kill_all(self) -> None:
        """End every process of the stack at once with SIGKILL, as a power cut does.

        This includes the watchdog, runs, and all other processes that a part has started.
        """
        if self._watchdog is not None:
            self._watchdog.kill()
        for part in self.parts:
            part.signal(signal.SIGKILL)
        end_all(self._token, signal.SIGKILL)
        for part in self.parts:
            if part.process is not None:
                part.process.wait()

    def _end(self, number: int) -> bool:
        for part in reversed(self.parts):
            part.signal(number)
        deadline = self._clock() + STOP_SECONDS
        while self._clock() < deadline:
            if all(part.group_is_gone() for part in self.parts):
                return True
            time.sleep(0.05)
        return False


@contextmanager
def _ignoring(*numbers: signal.Signals) -> Iterator[None]:
    """Ignore signals inside the block. Processes that are started in it inherit this."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def terminating() -> Iterator[None]:
    """Make SIGTERM end the stack as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
