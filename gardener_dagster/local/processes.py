"""Child processes: started together, watched, ended together. Knows nothing of what they do.

Each has a session of its own, so that what it starts (a code server its run workers, for one) ends
with it.
"""

import os
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

LAST_LINES = 25
STOP_SECONDS = 10.0


class PartFailedError(RuntimeError):
    """A part ended, or did not come up; the message has its log's last lines."""

    def __init__(self, part: "Part", what: str) -> None:
        self.part = part
        lines = "\n".join(f"  | {line}" for line in part.last_lines()) or "  | (nothing)"
        super().__init__(f"{part.name} {what}. The last lines of {part.log}:\n{lines}")


@dataclass(kw_only=True)
class Part:
    """One process of the stack.

    Attributes:
        name: What people call it.
        command: The program and its arguments.
        environment: All of its environment.
        log: Where its output goes.
        alive_url: An http URL that answers below 500 once the part works, or tcp://host:port that
            takes connections then; empty: it works from the start.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    alive_url: str = ""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Starts the process."""
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
        """``None`` while it runs or was not started."""
        return None if self.process is None else self.process.poll()

    def answers(self) -> bool:
        """Whether it works now."""
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
        """What it said last."""
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        return text.splitlines()[-LAST_LINES:]

    def signal(self, number: int) -> None:
        """Sends a signal to the process and all it started."""
        if self.process is not None:
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                return

    def group_is_gone(self) -> bool:
        """Whether neither the process nor anything it started is left."""
        if self.process is None:
            return True
        self.process.poll()  # reaps it, or the group would stay
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return True
        return False


class Processes:
    """The parts of a stack, as a context manager: on the way out none is left."""

    def __init__(
        self, parts: Sequence[Part], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.parts = list(parts)
        self._clock = clock

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def part(self, name: str) -> Part:
        """The part of that name."""
        return next(part for part in self.parts if part.name == name)

    def start(self, *names: str) -> None:
        """Starts the named parts, or all."""
        for part in self.parts:
            if (not names or part.name in names) and part.process is None:
                part.start()

    def wait_until_ready(
        self, *names: str, timeout: float = 120.0, seen: Callable[[Part], None] = lambda _: None
    ) -> None:
        """Waits until the named parts, or all, answer.

        Args:
            names: Parts; none: all.
            timeout: Seconds.
            seen: Called with each part as it comes up.

        Raises:
            PartFailedError: One ended, or does not answer in time.
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
        """Looks whether all parts that were started are alive.

        Raises:
            PartFailedError: One has ended.
        """
        for part in self.parts:
            if part.exit_code is not None:
                raise PartFailedError(part, f"ended with exit code {part.exit_code}")

    def stop(self) -> None:
        """Ends all parts: politely, and after ten seconds, or when interrupted again, by force."""
        try:
            if self._end(signal.SIGTERM):
                return
        except KeyboardInterrupt:
            pass
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # nothing may come between now
        self._end(signal.SIGKILL)

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
def terminating() -> Iterator[None]:
    """Lets SIGTERM end the stack as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
