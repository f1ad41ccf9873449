"""A real sidecar, over real HTTP."""

import asyncio
import datetime as dt
import http.client
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from job_requests import wanted

from gardener_api.config import GardenerConfig
from gardener_api.server.app import Ports, run
from gardener_api.store import schema
from gardener_api.store.engine import writing
from gardener_api.store.store import JobStore

SECONDS = 30.0


@dataclass
class Reply:
    """What came back."""

    code: int
    body: bytes
    headers: dict[str, str]


@dataclass
class Sidecar:
    """A sidecar and its store, which the test fills."""

    store: JobStore
    config: GardenerConfig
    now: dt.datetime = dt.datetime(2024, 3, 2, 10, 30, tzinfo=dt.UTC)
    ports: Ports = field(init=False)

    def ask(self, day: int = 1, **changed: Any) -> None:
        """Put a job of March 2024 into the queue."""
        request = wanted(dt.date(2024, 3, day), **changed)
        self.store.enqueue([request], now=self.now)

    def request(
        self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Reply:
        """One request, on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports.jobs, timeout=SECONDS)
        try:
            connection.request(method, target, body, headers or {})
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, response.read(), names)
        finally:
            connection.close()


StartSidecar = Callable[..., Sidecar]


@pytest.fixture(scope="session")
def start_sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartSidecar]:
    """Starts sidecars in threads, each on free ports and with a store of its own."""
    endings: list[Callable[[], None]] = []

    def start(*, token: str | None = None) -> Sidecar:
        url = f"sqlite:///{tmp_path_factory.mktemp('sidecar') / 'gardener.db'}"
        source = {"bucket": "archive-mlab-oti", "experiment": "ndt", "datatype": "ndt7"}
        config = GardenerConfig.model_validate(
            {"start_date": "2024-03-01", "tracker": {"timeout": "5h"}, "sources": [source]}
        )
        store = JobStore.open(url, lease=config.tracker.timeout, max_attempts=3)
        sidecar = Sidecar(store, config)
        endings.append(store.close)
        endings.append(_in_thread(sidecar, url, token))
        return sidecar

    yield start
    for end in reversed(endings):
        end()


@pytest.fixture(scope="session")
def running_sidecar(start_sidecar: StartSidecar) -> Sidecar:
    """The sidecar of all tests that do not need their own: a start and an end take 0.2 s."""
    return start_sidecar()


@pytest.fixture
def sidecar(running_sidecar: Sidecar) -> Sidecar:
    """A sidecar with an empty store."""
    with writing(running_sidecar.store._engine).begin() as connection:
        for table in reversed(schema.metadata.sorted_tables):
            if table is not schema.version:
                connection.execute(table.delete())
    return running_sidecar


def _in_thread(sidecar: Sidecar, url: str, token: str | None) -> Callable[[], None]:
    listening = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    def started(ports: Ports) -> None:
        sidecar.ports = ports
        listening.set()

    def work() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(
                run(
                    config=sidecar.config,
                    store_url=url,
                    host="127.0.0.1",
                    ports=Ports(jobs=0, status=0, metrics=0),
                    token=token,
                    shutdown_timeout=SECONDS,
                    stop=stop,
                    started=started,
                    clock=lambda: sidecar.now,
                )
            )

    thread = threading.Thread(target=work)
    thread.start()

    def end() -> None:
        loop.call_soon_threadsafe(stop.set)
        thread.join(SECONDS)
        assert not thread.is_alive()

    if not listening.wait(SECONDS):
        end()
        pytest.fail("the sidecar did not begin to listen")
    return end
