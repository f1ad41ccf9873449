"""Connections of uvicorn: each answer in one write, and bounds on time, size and number.

uvicorn writes the head and the body of an answer apart. A Go client that cancels its request's
context once the head has arrived, as the parsers' client does, then loses the body. uvicorn also
waits forever for a first byte, for the end of a head and for the rest of a body that nobody reads,
and keeps headers of any length. Bodies that are read are bounded in ``jobs_api``.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_CONNECTIONS = 4_096
"""Connections of a port; a client needs one for each call under way. One more is closed at once."""
HEAD_SECONDS = 30.0
"""For the line and the headers of a request to arrive, from the connection's start or from the
first byte after the last answer. A connection that is kept alive may be silent for longer."""
MAX_HEAD = 96 * 2**10
"""Bytes of these, so all that are under way are at most 400 MB. uvicorn's parser takes a line of
64 KiB; a parser whose detail is longer (2,000 characters of it are kept) must send a form."""
DRAIN_SECONDS = 0.5
"""At the end, for the next call of a client that keeps its connection. It is answered, and told to
take another connection. Closed at once, the connection would lose a call that is on its way, and a
Go client repeats no POST: the end of a parse could be lost."""
MAX_JOINED = 64 * 2**10
"""Bytes after which a transport writes without waiting for more."""


class JoiningTransport:
    """A transport that joins the writes of one turn of the event loop into one.

    It has the methods of ``asyncio.Transport`` that uvicorn calls. Nothing is written later than at
    the end of the turn, so an interim answer ("100 Continue") and the parts of a long answer leave
    at once.
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
        """Send the data together with what else is written in this turn."""
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
        # The peer may have hung up since: then there is nobody to write to.
        if data and not self._transport.is_closing():
            self._transport.write(data)


class BoundedConnection(HttpToolsProtocol):
    """A connection that writes each answer at once and keeps these bounds."""

    _unread = 0  # bytes since the last head, or part of a body, was complete
    _deadline: asyncio.TimerHandle | None = None
    _ending = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Take the connection, unless there are too many."""
        joining: Any = JoiningTransport(transport, self.loop)
        super().connection_made(joining)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.close()
        else:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._unwatch()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take a part of a request, or several requests."""
        self._unread += len(data)
        super().data_received(data)
        if self._answered:
            self._watch()
        else:
            self._unwatch()
        if self._unread > MAX_HEAD:
            self._refuse()

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._unread = 0
        super().on_headers_complete()
        if self._ending and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """A part of the body, which is bounded by who reads it."""
        self._unread = 0
        super().on_body(body)

    def shutdown(self) -> None:
        """Close it after the call that is under way, or after the next one."""
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
