"""The ports of a stack: the usual ones, those asked for, and others where one is taken."""

import contextlib
import secrets
import socket
from collections.abc import Iterator, Mapping

import psutil

PREFERRED_PORTS = {
    "dagster": 3000,
    "jobs": 8080,
    "status": 8081,
    "metrics": 9090,
    "bigquery": 9050,
    "storage": 9023,
    "code": 4000,
}
"""The default port of each part."""


class PortError(RuntimeError):
    """A requested port is not available; the message says which and why."""


def choose_ports(
    preferred: Mapping[str, int] | None = None, asked_for: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Choose a free port for each part.

    Args:
        preferred: The default ports; a port that is in use or 0 is replaced by a free one.
            ``None``: ``PREFERRED_PORTS``.
        asked_for: Requested ports by part; they are never replaced.

    Raises:
        PortError: A requested port is in use, or was requested twice.
    """
    wanted = PREFERRED_PORTS if preferred is None else preferred
    chosen: dict[str, int] = {}
    for name, port in (asked_for or {}).items():
        if not _is_free(port):
            raise PortError(
                f"--port {name}={port}: the port is in use{_user_of(port)}; expected a free one"
            )
        if port in chosen.values():
            raise PortError(f"--port {name}={port}: another part has this port; expected its own")
        chosen[name] = port
    for name, port in wanted.items():
        if name not in chosen:
            taken = not port or port in chosen.values() or not _is_free(port)
            chosen[name] = _any_free(chosen) if taken else port
    return {name: chosen[name] for name in wanted}


def replaced_ports(
    ports: Mapping[str, int], asked_for: Mapping[str, int] | None = None
) -> Iterator[str]:
    """Yield a message for each part that does not have its default port."""
    for name, usual in PREFERRED_PORTS.items():
        if ports[name] != usual and name not in (asked_for or {}):
            yield (
                f"{name}: port {usual} is in use{_user_of(usual)}, so it has {ports[name]}."
                f" --port {name}=NUMBER chooses another one"
            )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _any_free(chosen: Mapping[str, int]) -> int:
    # Below the ephemeral ports: an outgoing connection could take one of those before the part
    # starts.
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        if port not in chosen.values() and _is_free(port):
            return port


def _user_of(port: int) -> str:
    """Describe the process that listens on a port; "" if it is unknown."""
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            listens_at = connection.laddr if connection.status == psutil.CONN_LISTEN else ()
            if listens_at and listens_at.port == port and connection.pid:
                return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return ""
