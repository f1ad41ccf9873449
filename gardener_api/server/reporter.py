"""Delivers the outbox to Dagster's webserver, in a thread of its own.

Delivery is in order and at least once: an observation is removed after the webserver accepted it,
so a process that is killed in between delivers it again. Of several sidecars on one store, one at a
time delivers, under a lease in the store. Failed deliveries are retried with exponential backoff.

The endpoint is ``/report_asset_observation``, Dagster's public one for external assets:
https://docs.dagster.io/api/rest-apis/external-assets-rest-api
"""

import datetime as dt
import logging
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import requests
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from gardener_api.formatting import human_duration, one_line
from gardener_api.jobs.observations import Observation
from gardener_api.store.outbox import Backlog, Outbox

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""Interval of reads of an empty outbox, to which other sidecars write too."""
RETRY_SECONDS = (1.0, 60.0)
"""First and maximum pause before a retry if the webserver does not answer."""
KEPT = dt.timedelta(days=7)
"""Maximum age of undelivered observations; older ones are dropped."""
MOST_KEPT = 50_000
"""Maximum number of undelivered observations: about 20 MB."""
_LEASE = dt.timedelta(seconds=60)
_BATCH = 100
_BATCH_TIME = dt.timedelta(seconds=20)  # less than _LEASE even with a last call of _TIMEOUT
_TIMEOUT = (5.0, 20.0)  # seconds, to connect and to answer
_END_SECONDS = 2.0  # for the call in progress at shutdown
_REFUSED = {400, 422}  # the observation itself is rejected: a retry would not help

Clock = Callable[[], dt.datetime]


class UndeliveredError(RuntimeError):
    """The webserver did not accept an observation; the message has the reason, but no address."""


class Reporter(Collector):
    """Delivers the outbox of a sidecar's store until it is closed."""

    def __init__(self, outbox: Outbox, dagster_url: str, *, clock: Clock) -> None:
        """Create the reporter; ``start`` starts its thread.

        Args:
            outbox: The observations to deliver.
            dagster_url: The URL of Dagster's webserver, as this process reaches it.
            clock: Returns the time, aware and UTC.
        """
        self._outbox, self._clock = outbox, clock
        self._endpoint = f"{dagster_url.rstrip('/')}/report_asset_observation/parsed"
        self._holder = f"{socket.gethostname()} {uuid.uuid4()}"
        self._session = requests.Session()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="reporter", daemon=True)
        self._failing_since: dt.datetime | None = None
        self._reason = ""
        self._delivers = True
        self._leased_until = dt.datetime.min.replace(tzinfo=dt.UTC)
        self._delivered = self._failures = self._dropped = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread; undelivered observations stay in the store."""
        self._closing.set()
        self._thread.join(_END_SECONDS)

    def state(self) -> str:
        """Return the state of the delivery, for people. Does no I/O and never raises."""
        if not self._thread.is_alive():
            return "its thread has ended: restart the sidecar"
        if self._failing_since is not None:
            since = f"{self._failing_since:%Y-%m-%d %H:%M} UTC"
            return f"not delivered since {since}, tried again: {self._reason}"
        return "delivered" if self._delivers else "another sidecar delivers them"

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of the outbox and of this process's deliveries."""
        backlog = self._outbox.backlog()
        yield _gauge("pending", "Observations that Dagster does not have yet.", backlog.count)
        yield _gauge(
            "oldest_seconds",
            "Age of the oldest observation that Dagster does not have yet.",
            _age(backlog, self._clock()),
        )
        for name, text, value in (
            ("delivered", "Observations that Dagster took from this process.", self._delivered),
            ("failures", "Times that Dagster's webserver did not take one.", self._failures),
            ("dropped", "Observations given up: too old, too many or refused.", self._dropped),
        ):
            yield _counter(name, text, value)

    def _work(self) -> None:
        pause = 0.0
        while not self._closing.wait(pause):
            pause = self._deliver(pause)
        if self._leased_until > self._clock():
            try:
                self._outbox.release(self._holder)
            except SQLAlchemyError as error:  # the lease expires anyway
                log.info("the lease of the outbox was not given back: %s", one_line(error))

    def _deliver(self, paused: float) -> float:
        """Deliver a batch.

        Args:
            paused: Seconds of the pause before this batch.

        Returns:
            Seconds of the pause before the next batch.
        """
        try:
            more = self._deliver_batch()
        except UndeliveredError as error:
            return self._failed(str(error), paused)
        except SQLAlchemyError as error:
            log.warning("the outbox failed: %s", one_line(error))
            return self._failed(f"the store failed ({type(error).__name__})", paused)
        if self._failing_since is not None:
            log.warning("observations are delivered to Dagster again")
            self._failing_since = None
        return 0.0 if more else POLL_SECONDS

    def _deliver_batch(self) -> bool:
        """Deliver the next batch; return whether there may be more."""
        # An empty outbox needs no lease: taking one is a commit, which waits for the disk.
        if not self._outbox.first(1) or not self._has_lease():
            return False
        waiting = self._outbox.first(_BATCH)
        until = self._clock() + _BATCH_TIME
        done: list[int] = []
        try:
            for each in waiting:
                if self._closing.is_set() or self._clock() >= until:
                    return True
                self._post(each.observation)
                done.append(each.number)
        finally:
            if done:
                self._outbox.remove(done)
        return len(waiting) == _BATCH

    def _has_lease(self) -> bool:
        """Take or renew the lease if it could end during a batch; return whether it is held."""
        now = self._clock()
        if now + _BATCH_TIME + dt.timedelta(seconds=sum(_TIMEOUT)) >= self._leased_until:
            until = now + _LEASE
            self._delivers = self._outbox.lease(self._holder, until=until, now=now)
            self._leased_until = until if self._delivers else now
        return self._delivers

    def _post(self, observation: Observation) -> None:
        body: dict[str, Any] = {
            "partition": observation.key.date.isoformat(),
            "description": observation.description,
            "metadata": observation.metadata,
        }
        try:
            response = self._session.post(
                f"{self._endpoint}/{observation.key.source}",
                json=body,
                timeout=_TIMEOUT,
                allow_redirects=False,  # to a sign-in page, for example
            )
        except requests.RequestException as error:
            log.debug("an observation was not delivered", exc_info=True)
            raise UndeliveredError(
                f"the webserver does not answer ({type(error).__name__})"
            ) from error
        if response.status_code in _REFUSED:
            log.error("Dagster refused %s of %s: %s", body, observation.key, response.text[:1000])
            self._dropped += 1
        elif response.status_code != requests.codes.ok:
            raise UndeliveredError(f"the webserver answers {response.status_code}, expected 200")
        else:
            self._delivered += 1

    def _failed(self, reason: str, paused: float) -> float:
        now = self._clock()
        self._failures += 1
        if self._failing_since is None:
            self._failing_since = now
            log.warning(
                "observations are not delivered to Dagster, and are tried again: %s."
                " What to do: see whether its webserver runs at GARDENER_DAGSTER_URL",
                reason,
            )
        self._reason = reason
        least, most = RETRY_SECONDS
        try:
            dropped = self._outbox.drop(before=now - KEPT, keep=MOST_KEPT)
        except SQLAlchemyError as error:
            log.warning("the outbox could not be cut: %s", one_line(error))
        else:
            if dropped:
                log.error(
                    "%d observations were dropped: Dagster did not take them for %s",
                    dropped,
                    human_duration(now - self._failing_since),
                )
                self._dropped += dropped
        return min(max(2 * paused, least), most)


def _age(backlog: Backlog, now: dt.datetime) -> float:
    return max(0.0, (now - backlog.oldest).total_seconds()) if backlog.oldest else 0.0


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"gardener_outbox_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"gardener_outbox_{name}", text, value=value)
