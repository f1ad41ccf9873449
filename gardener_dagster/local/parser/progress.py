"""Archives that are parsed at the same time, and whether each makes progress."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait

from gardener_dagster.local.parser.outputs import Outcome

STOP_SECONDS = 10.0
"""How long archives whose job is over may take to notice it."""


class StoppedError(Exception):
    """The work on an archive was no longer wanted; nothing was written."""


class Archive:
    """The work on one archive.

    Attributes:
        name: Of its object.
        moved: When it last got on, by the clock.
    """

    def __init__(self, name: str, clock: Callable[[], float]) -> None:
        self.name = name
        self._clock = clock
        self.moved = clock()


class RunningArchives:
    """The archives of a job that are being parsed, each in a thread of its own.

    The threads are daemons: one that never comes back keeps neither the next job nor the end of
    the process waiting. A thread pool would wait for it.
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
            parse: Parses the archive of a name; calls its second argument whenever it gets on.
            stopped: Whether the work is no longer wanted, whatever the job.
            clock: Seconds, as ``time.monotonic``.
        """
        self._parse, self._stopped, self._clock = parse, stopped, clock
        self._over = threading.Event()
        self._running: dict[Future[Outcome], Archive] = {}

    def __len__(self) -> int:
        return len(self._running)

    def start(self, name: str) -> None:
        """Parse an archive."""
        archive, future = Archive(name, self._clock), Future[Outcome]()

        def checkpoint() -> None:
            if self._over.is_set() or self._stopped():
                raise StoppedError(name)
            archive.moved = self._clock()

        def work() -> None:
            try:
                future.set_result(self._parse(name, checkpoint))
            except BaseException as error:  # noqa: BLE001 - whoever takes the result gets it
                future.set_exception(error)

        self._running[future] = archive
        threading.Thread(target=work, name=f"archive {name}", daemon=True).start()

    def wait(self, seconds: float) -> list[tuple[str, "Future[Outcome]"]]:
        """Wait until an archive is done, or for so long; those that are, with their names."""
        done, _ = wait(self._running, seconds, FIRST_COMPLETED)
        return [(self._running.pop(future).name, future) for future in done]

    def moved(self) -> float:
        """When any of them last got on."""
        return max(archive.moved for archive in self._running.values())

    def slowest(self) -> Archive:
        """The one that has not got on for the longest time."""
        return min(self._running.values(), key=lambda archive: archive.moved)

    def stop(self) -> None:
        """End the work on all of them at their next checkpoint, and wait a while for that."""
        self._over.set()
        wait(self._running, STOP_SECONDS)
