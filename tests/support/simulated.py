"""Stand-ins for what is outside the pipeline; nothing of the pipeline itself is replaced."""

import datetime as dt
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from gardener_api.jobs.job import Job, JobState
from gardener_api.jobs.parser_calls import Error, Update
from gardener_api.store.store import JobStore

Put = Callable[..., None]
"""Puts an archive of a date into the archive bucket."""


@dataclass
class Parser:
    """A parser that does as a real one, at once; it fails the dates it is told to."""

    store: JobStore
    failing: set[dt.date] = field(default_factory=set)
    seen: list[Job] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Parser":
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stop.wait(0.02):
            for job in self.store.lease(1, parser="test", now=dt.datetime.now(dt.UTC)):
                self.seen.append(job)
                self.finish(job)

    def finish(self, job: Job) -> None:
        now = dt.datetime.now(dt.UTC)
        if job.key.date in self.failing:
            self.store.apply([Error(job.id, "no tar in it")], now=now)
        else:
            self.store.apply(
                [
                    Update(job.id, JobState.PARSING, "starting tasks"),
                    Update(job.id, JobState.POST_PROCESSING, ""),
                ],
                now=now,
            )
