"""Unpacking gzip data of any number of streams, up to the place where it is damaged.

The standard library's ``gzip`` loses up to one buffer (128 KiB since Python 3.12) of good data
before a damaged place, which is more than many archives have.
"""

import zlib
from collections.abc import Callable, Iterator
from typing import IO

GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = 31  # zlib's code for a gzip header and its checksum
_READ_BYTES = 2**16
_PIECE_BYTES = 2**18


class DamagedError(ValueError):
    """Data is damaged or cut off; the message says how."""


def gzip_pieces(packed: IO[bytes]) -> Iterator[bytes]:
    """Yield the content of gzip data, at most 256 KiB at a time.

    The contents of consecutive streams are concatenated, as in RFC 1952 and in Go. Zeros after a
    stream are ignored.

    Raises:
        DamagedError: The data is damaged; raised after everything before the damage was yielded.
    """
    unpacker, begun = None, False
    while data := packed.read(_READ_BYTES):
        while data:
            if unpacker is None:
                data = data.lstrip(b"\0") if begun else data
                if not data:
                    break
                unpacker, begun = zlib.decompressobj(wbits=_GZIP_WINDOW), True
            yield from _pieces(unpacker, data)
            data = unpacker.unused_data
            if unpacker.eof:
                unpacker = None
    if unpacker is not None:
        raise DamagedError("its gzip data is cut off")


def _pieces(unpacker: "zlib._Decompress", data: bytes) -> Iterator[bytes]:
    while True:
        before = unpacker.copy()
        try:
            piece = unpacker.decompress(data, _PIECE_BYTES)
        except zlib.error as error:
            yield from _ahead_of_damage(before, data)
            raise DamagedError(f"its gzip data is damaged: {error}") from error
        if piece:
            yield piece
        data = unpacker.unconsumed_tail
        # After a full piece, zlib may hold more content although it has read all data.
        if unpacker.eof or (not data and len(piece) < _PIECE_BYTES):
            return


def _ahead_of_damage(unpacker: "zlib._Decompress", data: bytes) -> Iterator[bytes]:
    """Yield the content before a damaged place, which zlib does not return when it fails."""
    for at in range(len(data)):
        try:
            yield unpacker.decompress(data[at : at + 1])
        except zlib.error:
            return


def plain_pieces(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the content of an uncompressed file."""
    while piece := file.read(_PIECE_BYTES):
        yield piece


class Stream:
    """Reads pieces like a file.

    Attributes:
        position: Number of bytes read.
        fault: How the data is damaged; "" if no damage has been found yet.
    """

    def __init__(self, pieces: Iterator[bytes], checkpoint: Callable[[], object]) -> None:
        """Prepare a stream. Nothing is read yet.

        Args:
            pieces: The content; it may end with ``DamagedError``.
            checkpoint: Called for each piece.
        """
        self._pieces, self._checkpoint = pieces, checkpoint
        self._buffer = bytearray()
        self.position = 0
        self.fault = ""

    def read(self, size: int) -> bytes:
        """Read ``size`` bytes; fewer at the end of the content or at a damaged place."""
        while len(self._buffer) < size and (piece := self._next()):
            self._buffer += piece
        content = bytes(self._buffer[:size])
        del self._buffer[:size]
        self.position += len(content)
        return content

    def skip(self, size: int) -> bool:
        """Skip ``size`` bytes; return whether there were so many."""
        while size and (passed := len(self.read(min(size, _PIECE_BYTES)))):
            size -= passed
        return not size

    def _next(self) -> bytes:
        try:
            for piece in self._pieces:
                self._checkpoint()
                if piece:
                    return piece
        except DamagedError as error:
            self.fault = str(error)
        return b""
