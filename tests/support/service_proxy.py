"""What a Kubernetes Service does: new connections go to one of the endpoints that are ready."""

import itertools
import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_CHUNK = 64 * 2**10


@dataclass
class Service:
    """An address, and the ports that stand behind it.

    Attributes:
        port: Where clients connect, on 127.0.0.1.
        ready: The ports of the endpoints. Connections that were made before stay where they are.
        refused: Connections that found no endpoint.
    """

    port: int = 0
    ready: list[int] = field(default_factory=list)
    refused: int = 0

    @property
    def url(self) -> str:
        """Like that of a service."""
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def service(*ready: int) -> Iterator[Service]:
    """A service before these ports."""
    made = Service(ready=list(ready))
    turn = itertools.count()
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        made.port = listener.getsockname()[1]

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                try:
                    port = made.ready[next(turn) % len(made.ready)]
                    server = socket.create_connection(("127.0.0.1", port))
                except (OSError, ZeroDivisionError):
                    made.refused += 1
                    client.close()
                    continue
                threading.Thread(target=_forward, args=(client, server), daemon=True).start()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield made
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _forward(client: socket.socket, server: socket.socket) -> None:
    """Pass on what each end says, until one of them ends."""
    for end in (client, server):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with client, server, selectors.DefaultSelector() as selector, suppress(OSError):
        selector.register(client, selectors.EVENT_READ, server)
        selector.register(server, selectors.EVENT_READ, client)
        while True:
            for key, _ in selector.select():
                assert isinstance(key.fileobj, socket.socket)
                data = key.fileobj.recv(_CHUNK)
                if not data:
                    return
                key.data.sendall(data)
