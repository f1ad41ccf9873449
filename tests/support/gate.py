"""A Cloud Storage whose answers can be held back, to keep a parser where a test wants it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests

HOLD_SECONDS = 120.0


@dataclass
class Gate:
    """Passes requests on, but holds those whose path has ``hold`` in it until it is opened."""

    upstream: str
    hold: str
    url: str = ""
    opened: threading.Event = field(default_factory=threading.Event)

    def open(self) -> None:
        """Lets go of all that is held."""
        self.opened.set()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A parser that is killed breaks its connections off: nothing to tell."""


@contextmanager
def gate(upstream: str, *, hold: str) -> Iterator[Gate]:
    """A gate before a Cloud Storage.

    Args:
        upstream: The storage's URL.
        hold: Part of the path of the requests to hold.
    """
    made = Gate(upstream, hold)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            if hold in self.path:
                made.opened.wait(HOLD_SECONDS)
            headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
            answer = requests.request(
                self.command, upstream + self.path, headers=headers, data=body, timeout=60
            )
            content = answer.content
            if "json" in answer.headers.get("Content-Type", ""):
                # Where to read an object: through the gate, too.
                content = content.replace(upstream.encode(), made.url.encode())
            self.send_response(answer.status_code)
            for name, value in answer.headers.items():
                if name.lower() not in ("transfer-encoding", "content-length", "connection",
                                        "content-encoding", "date", "server"):  # fmt: skip
                    self.send_header(name, value.replace(upstream, made.url))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = pass_on

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing is logged."""

    with _Server(("127.0.0.1", 0), Handler) as server:
        made.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield made
        finally:
            made.open()
            server.shutdown()
            thread.join()
