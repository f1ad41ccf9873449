"""A status page that is served: the real application on a real server, in a thread."""

import contextlib
import datetime as dt
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import uvicorn

from gardener_api.config import GardenerConfig
from gardener_api.links import Links
from gardener_api.status.pages import create_status_app
from gardener_api.store.store import JobStore

SECONDS = 30.0


@dataclass
class Site:
    """Where the page is, what is behind it, and its clock, which stands still."""

    url: str
    store: JobStore
    now: dt.datetime


@contextlib.contextmanager
def served(config: GardenerConfig, store: JobStore, now: dt.datetime) -> Iterator[Site]:
    """Serve the status page of a store on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        site = Site(f"http://127.0.0.1:{listener.getsockname()[1]}", store, now)
        links = Links(dagster_url="http://dagster.example:3000", project="mlab")
        app = create_status_app(config, store, clock=lambda: site.now, links=links)
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield site
        finally:
            server.should_exit = True
            thread.join(SECONDS)
            assert not thread.is_alive()
