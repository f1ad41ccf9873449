"""Connections of uvicorn: each answer in one write, and bounds on time, size and number.

uvicorn writes the head and the body of an answer separately. A Go client that cancels its request's
context once the head has arrived, as the parsers' client does, then loses the body. uvicorn also
has no timeout for a first byte, the end of a head or the rest of a body that no code reads, and no
limit on the length of headers. ``jobs_api`` limits the bodies that it reads.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_CONNECTIONS = 4_096
"""Maximum connections of a port, one per concurrent call; any more are closed at once."""
HEAD_SECONDS = 30.0
"""Timeout for the request line and headers, from the start of the connection or from the first
byte after the last answer. An idle connection that is kept alive may be silent for longer."""
MAX_HEAD = 96 * 2**10
"""Maximum bytes of the request line and headers; 400 MB for all connections. uvicorn accepts a line
of 64 KiB; a longer detail (of which 2,000 characters are kept) must be sent as a form."""
DRAIN_SECONDS = 0.5
"""How long an idle connection stays open at shutdown. A call that arrives on it is answered with
``Connection: close``. If it were closed at once, a call already sent would be lost, since a Go
client does not retry a POST: the end of a parse could be lost."""
MAX_JOINED = 64 * 2**10
"""Bytes above which a transport writes at once, without waiting for more."""


class JoiningTransport:
    """A transport that joins the writes of one turn of the event loop into one.

    It has the methods of ``asyncio.Transport`` that uvicorn calls. It writes at the end of the turn
    at the latest, so an interim answer ("100 Continue") and the parts of a long answer are not
    delayed.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._parts: list[bytes] = []
        self._size = 0
        self.is_closing = transport.is_closing
        self.get_extra_info = transport.get_extra_info
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def write(self, data: bytes) -> None:
        """Send the data together with the other writes of this turn."""
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)
        self._size += len(data)
        if self._size > MAX_JOINED:
            self._flush()

    def close(self) -> None:
        """Send what was written, then close the connection."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        data = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        # The peer may have closed the connection in the meantime.
        if data and not self._transport.is_closing():
            self._transport.write(data)


class BoundedConnection(HttpToolsProtocol):
    """A connection that sends each answer in one write and enforces the limits above."""

    _unread = 0  # bytes received since the last complete head or part of a body
    _deadline: asyncio.TimerHandle | None = None
    _ending = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Accept the connection, or close it if there are too many."""
        joining: Any = JoiningTransport(transport, self.loop)
        super().connection_made(joining)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.close()
        else:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timeout of the closed connection."""
        self._unwatch()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Process a part of a request, or several requests."""
        self._unread += len(data)
        super().data_received(data)
        if self._answered:
            self._watch()
        else:
            self._unwatch()
        if self._unread > MAX_HEAD:
            self._refuse()

    def on_headers_complete(self) -> None:
        """Reset the count of unread bytes; at shutdown, end the keep-alive."""
        self._unread = 0
        super().on_headers_complete()
        if self._ending and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Reset the count of unread bytes; the reader of the body limits its size."""
        self._unread = 0
        super().on_body(body)

    def shutdown(self) -> None:
        """Close the connection after the current call, or after ``DRAIN_SECONDS`` if it is idle."""
        self._ending = True
        if self._answered:
            self.loop.call_later(DRAIN_SECONDS, self._close_if_idle)
        else:
            super().shutdown()

    def _close_if_idle(self) -> None:
        if self._answered and not self.transport.is_closing():
            self.transport.close()

    @property
    def _answered(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _refuse(self) -> None:
        if self.transport.is_closing():
            return
        if self._answered:
            self.send_400_response(
                f"expected a request line and headers of at most {MAX_HEAD} bytes"
            )
        else:
            self.transport.close()  # another answer is under way

    def _watch(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _unwatch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
