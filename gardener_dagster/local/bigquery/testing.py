"""A server for tests, in this process."""

import datetime as dt
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from gardener_dagster.local.bigquery.server import create_app, utc_now


@contextmanager
def running_server(
    data: Path,
    *,
    now: Callable[[], dt.datetime] = utc_now,
    memory_limit: str = "512MB",
    faults: bool = True,
    storage_url: str = "",
) -> Iterator[str]:
    """Runs a server on a free port of this machine, and ends it.

    Args:
        data: folder of everything it keeps.
        now: the time, aware.
        memory_limit: of DuckDB.
        faults: whether ``/faults`` is there.
        storage_url: of Cloud Storage; empty: as ``STORAGE_EMULATOR_HOST`` says.

    Yields:
        Its URL, for ``BIGQUERY_EMULATOR_HOST`` or a client's ``api_endpoint``.

    Raises:
        RuntimeError: it did not start.
    """
    app = create_app(
        data, now=now, memory_limit=memory_limit, faults=faults, storage_url=storage_url
    )
    config = uvicorn.Config(
        app, port=0, log_level="critical", access_log=False, timeout_graceful_shutdown=5
    )
    server = _Server(config)
    thread = threading.Thread(target=server.run, name="bigquery")
    thread.start()
    try:
        if not server.begun.wait(timeout=30) or not server.started:
            raise RuntimeError("The local BigQuery did not start")
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


class _Server(uvicorn.Server):
    """Says when it is there."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.begun = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts, and says so."""
        await super().startup(sockets)
        self.begun.set()
