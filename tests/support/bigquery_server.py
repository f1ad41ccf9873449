"""Run the local BigQuery in the process of a test."""

import datetime as dt
import threading
import time
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
    storage_url: str = "",
) -> Iterator[str]:
    """Run a server with ``/faults`` on a free port until the context ends.

    Args:
        data: folder that holds all data.
        now: returns the current time, aware.
        storage_url: URL of a Cloud Storage emulator; empty: ``STORAGE_EMULATOR_HOST``.

    Yields:
        The server's URL, for ``BIGQUERY_EMULATOR_HOST`` or a client's ``api_endpoint``.

    Raises:
        RuntimeError: the server did not start.
    """
    app = create_app(data, now=now, faults=True, storage_url=storage_url)
    config = uvicorn.Config(
        app, port=0, ws="none", log_level="critical", access_log=False, timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="bigquery")
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("The local BigQuery did not start")
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
