"""Reading archives: the tests in a ``.tgz`` or ``.tar``, one by one, unpacked.

Nothing but one member is in memory, however many there are. The ``MLAB.*`` records of pax headers
are passed over.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

from gardener_dagster.local.parser.tar import File, TarReader
from gardener_dagster.local.parser.unpacking import (
    GZIP_MAGIC,
    DamagedError,
    Stream,
    gzip_pieces,
    plain_pieces,
)

MAXIMUM_MEMBER_BYTES = 100_000_000
"""Unpacked. The row of a larger one could not be loaded: BigQuery takes 100 MB a row."""

_SUFFIXES = (".json", ".json.gz")


@dataclass(frozen=True, kw_only=True)
class Member:
    """A test in an archive.

    Attributes:
        name: In the archive.
        size: Bytes, as they are in the archive.
        content: Unpacked; ``None`` if it cannot be.
        fault: Why it cannot be.
    """

    name: str
    size: int
    content: bytes | None
    fault: str = ""


def read_members(
    archive: IO[bytes], checkpoint: Callable[[], object] = lambda: None
) -> Iterator[Member]:
    """The tests of an archive, in its order: the files named ``.json`` or ``.json.gz``.

    Args:
        archive: At its start; it must be able to go back there.
        checkpoint: Called for each 256 KiB at most that were unpacked. What it raises is passed on.

    Raises:
        DamagedError: The archive is damaged or cut off. Raised when all that is readable was
            yielded, also what is behind a damaged place. An error of reading ``archive`` itself is
            passed on as it is: it says nothing of what the archive holds.
    """
    magic = archive.read(len(GZIP_MAGIC))
    if not magic:
        raise DamagedError("it is empty")
    archive.seek(0)
    pieces = gzip_pieces(archive) if magic == GZIP_MAGIC else plain_pieces(archive)
    files = TarReader(
        Stream(pieces, checkpoint),
        wanted=lambda name: name.casefold().endswith(_SUFFIXES),
        maximum_bytes=MAXIMUM_MEMBER_BYTES,
    )
    yield from map(_member, files)
    if files.damage:
        raise DamagedError(files.damage)


def _member(file: File) -> Member:
    content, fault = file.content, file.fault
    if content is not None and file.name.casefold().endswith(".gz"):
        content, fault = _unpack(content)
    return Member(name=file.name, size=file.size, content=content, fault=fault)


def _unpack(packed: bytes) -> tuple[bytes | None, str]:
    """The content of a gzip file, or why there is none; never more than the maximum in memory."""
    content = bytearray()
    try:
        for piece in gzip_pieces(io.BytesIO(packed)):
            content += piece
            if len(content) > MAXIMUM_MEMBER_BYTES:
                return None, "is too large"
    except DamagedError as error:
        return None, f"cannot be unpacked: {error}"
    return bytes(content), ""
