"""Connections that never become requests cost little, end, and keep nobody from being served."""

import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from gardener_api.server import connections, jobs_api

Sidecar = Any  # the fixtures are in conftest, which cannot be imported
SECONDS = 30.0
HEAD = b"POST /v2/job/heartbeat?id=x HTTP/1.1\r\nHost: x\r\n"
FORM = b"Content-Type: application/x-www-form-urlencoded\r\n"


class Connect:
    """Makes connections, and ends them."""

    def __init__(self, port: int, stack: ExitStack) -> None:
        self._port, self._stack = port, stack

    def __call__(self, data: bytes = b"") -> socket.socket:
        connection = self._stack.enter_context(
            socket.create_connection(("127.0.0.1", self._port), timeout=SECONDS)
        )
        connection.sendall(data)
        return connection


@pytest.fixture
def connect(sidecar: Sidecar) -> Iterator[Connect]:
    with ExitStack() as stack:
        yield Connect(sidecar.ports.jobs, stack)


def received(connection: socket.socket) -> bytes:
    """All that comes until the sidecar hangs up."""
    data = b""
    try:
        while chunk := connection.recv(65536):
            data += chunk
    except ConnectionResetError:  # it hung up before it had read everything
        pass
    return data


def answer(connection: socket.socket) -> bytes:
    """The next answer, all of it: each has a body that ends its only line."""
    data = b""
    while not data.partition(b"\r\n\r\n")[2].endswith(b"\n"):
        chunk = connection.recv(65536)
        assert chunk, data
        data += chunk
    return data


def pour(connection: socket.socket, data: bytes, *, pause: float = 0.0) -> None:
    """Send it again and again until the sidecar hangs up or answers."""
    deadline = time.monotonic() + SECONDS
    while not select.select([connection], [], [], pause)[0]:
        assert time.monotonic() < deadline, "it goes on reading"
        with suppress(ConnectionError):
            connection.sendall(data)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("begun", [b"", b"\r\n", b"POST", HEAD, HEAD + b"X: "], ids=repr)
def test_one_that_does_not_finish_a_head_is_closed(connect: Connect, begun: bytes) -> None:
    assert received(connect(begun)) == b""


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    ("begun", "drop"), [(b"", b"\r\n"), (HEAD, b"x: 1\r\n"), (HEAD + b"x: ", b"y")], ids=repr
)
def test_drop_by_drop_is_no_excuse(connect: Connect, begun: bytes, drop: bytes) -> None:
    connection = connect(begun)
    pour(connection, drop, pause=0.02)


@pytest.mark.usefixtures("short")
def test_one_that_is_kept_alive_may_be_silent_for_longer(connect: Connect) -> None:
    silent, alive = connect(), connect()
    alive.sendall(HEAD + b"\r\n")
    assert answer(alive).startswith(b"HTTP/1.1 410")
    assert received(silent) == b""
    alive.sendall(HEAD + b"\r\n")
    assert answer(alive).startswith(b"HTTP/1.1 410")


@pytest.mark.usefixtures("short")
def test_a_body_that_nobody_reads_does_not_keep_it_open(connect: Connect) -> None:
    connection = connect(HEAD + b"Content-Length: 1000\r\n\r\n")  # no form
    assert answer(connection).startswith(b"HTTP/1.1 410")
    connection.sendall(b"x")
    assert received(connection) == b""


@pytest.mark.parametrize("more", [b"x: ", b"x: 1\r\n" * 1000, b"y" * 10_000], ids=len)
def test_a_head_that_is_too_large_is_refused(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, more: bytes
) -> None:
    monkeypatch.setattr(connections, "MAX_HEAD", 40_000)
    connection = connect(HEAD)
    pour(connection, more)
    assert b"400 Bad Request" in received(connection)[:100]


def test_trailers_are_part_of_the_bound(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_HEAD", 40_000)
    connection = connect(HEAD + FORM + b"Transfer-Encoding: chunked\r\n\r\n0\r\n")
    pour(connection, b"x: 1\r\n" * 1000)


def test_one_too_many_is_closed_and_the_others_are_served(
    sidecar: Sidecar, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 20)
    served = connect(HEAD + b"\r\n")
    assert answer(served).startswith(b"HTTP/1.1 410")
    silent = [connect() for _ in range(30)]
    assert received(silent[-1]) == b""
    served.sendall(HEAD + b"\r\n")
    assert answer(served).startswith(b"HTTP/1.1 410")


def test_a_form_that_says_it_is_too_long_is_not_waited_for(connect: Connect) -> None:
    length = f"Content-Length: {jobs_api.MAX_BODY + 1}\r\n\r\n".encode()
    assert connect(HEAD + FORM + length).recv(1000).startswith(b"HTTP/1.1 413")
