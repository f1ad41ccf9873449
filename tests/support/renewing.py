"""A lease that is held for as long as a test wants, however slow the machine is."""

import datetime as dt
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gardener_api.jobs.parser_calls import Heartbeat
from gardener_api.store.store import JobStore

_SECONDS = 1.0


@contextmanager
def renewing(store: JobStore, job_id: str) -> Iterator[None]:
    """Sends a heartbeat each second, as a parser that works on the job."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(_SECONDS):
            store.apply([Heartbeat(job_id)], now=dt.datetime.now(dt.UTC))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
