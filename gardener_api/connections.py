"""Connections that never become requests: how long, how large and how many they may be.

uvicorn waits for ever for a first byte, for the end of a head, and for the rest of a body that
nobody reads, and keeps headers of any length. Bodies that are read are ``routes``'.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_CONNECTIONS = 4_096
"""Of a port; a client needs one for each call under way. One more is closed at once."""
HEAD_SECONDS = 30.0
"""For the line and the headers of a request to arrive, from the connection's start or from the
first byte after the last answer. A connection that is kept alive may be silent for longer."""
MAX_HEAD = 96 * 2**10
"""Bytes of these, so all that are under way are at most 400 MB. uvicorn's parser takes a line of
64 KiB; a parser whose detail is longer (2,000 characters of it are kept) must send a form."""


class BoundedConnection(HttpToolsProtocol):
    """A connection of uvicorn's that keeps these bounds."""

    _unread = 0  # bytes since the last head, or part of a body, was complete
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Take it, if there are not too many."""
        super().connection_made(transport)
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

    def on_body(self, body: bytes) -> None:
        """A part of the body, which is bounded by who reads it."""
        self._unread = 0
        super().on_body(body)

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
