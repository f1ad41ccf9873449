"""Archives that are parsed at the same time, and whether each makes progress."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait

from gardener_dagster.local.parser.outputs import Outcome

STOP_SECONDS = 10.0
"""Seconds to wait until the threads of a job that has ended stop."""


class StoppedError(Exception):
    """The parsing of an archive was stopped; nothing was written."""


class Archive:
    """The progress of one archive.

    Attributes:
        name: Name of its object.
        moved: Time of its last progress, by the clock.
    """

    def __init__(self, name: str, clock: Callable[[], float]) -> None:
        self.name = name
        self._clock = clock
        self.moved = clock()


class RunningArchives:
    """The archives of a job that are being parsed, each in its own thread.

    The threads are daemons, so a thread that never ends delays neither the next job nor the exit of
    the process. A thread pool would wait for it.
    """

    def __init__(
        self,
        parse: Callable[[str, Callable[[], None]], Outcome],
        stopped: Callable[[], bool],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare. Nothing is started yet.

        Args:
            parse: Parses the archive of a name; calls its second argument on progress.
            stopped: Returns whether the parser is stopping.
            clock: Seconds, as ``time.monotonic``.
        """
        self._parse, self._stopped, self._clock = parse, stopped, clock
        self._over = threading.Event()
        self._running: dict[Future[Outcome], Archive] = {}

    def __len__(self) -> int:
        return len(self._running)

    def start(self, name: str) -> None:
        """Start to parse an archive in a new thread."""
        archive, future = Archive(name, self._clock), Future[Outcome]()

        def checkpoint() -> None:
            if self._over.is_set() or self._stopped():
                raise StoppedError(name)
            archive.moved = self._clock()

        def work() -> None:
            try:
                future.set_result(self._parse(name, checkpoint))
            except BaseException as error:  # noqa: BLE001 - raised again by future.result()
                future.set_exception(error)

        self._running[future] = archive
        threading.Thread(target=work, name=f"archive {name}", daemon=True).start()

    def wait(self, seconds: float) -> list[tuple[str, "Future[Outcome]"]]:
        """Wait until an archive is done or the time is over; return the names and results."""
        done, _ = wait(self._running, seconds, FIRST_COMPLETED)
        return [(self._running.pop(future).name, future) for future in done]

    def moved(self) -> float:
        """Return the time of the latest progress of any archive."""
        return max(archive.moved for archive in self._running.values())

    def slowest(self) -> Archive:
        """Return the archive whose last progress is the longest ago."""
        return min(self._running.values(), key=lambda archive: archive.moved)

    def stop(self) -> None:
        """Stop all archives at their next checkpoint, and wait at most ``STOP_SECONDS``."""
        self._over.set()
        wait(self._running, STOP_SECONDS)
