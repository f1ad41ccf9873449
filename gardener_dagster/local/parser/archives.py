"""Reading archives: the tests in a ``.tgz`` or ``.tar``, one by one, unpacked.

Only one member is in memory at a time. The ``MLAB.*`` records of pax headers are ignored.
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
"""Maximum unpacked size. BigQuery accepts 100 MB a row, so it could not load a larger test."""

_SUFFIXES = (".json", ".json.gz")


@dataclass(frozen=True, kw_only=True)
class Member:
    """A test in an archive.

    Attributes:
        name: Path in the archive.
        size: Bytes in the archive, before unpacking.
        content: Unpacked; ``None`` if it cannot be unpacked.
        fault: Why it cannot be unpacked.
    """

    name: str
    size: int
    content: bytes | None
    fault: str = ""


def read_members(
    archive: IO[bytes], checkpoint: Callable[[], object] = lambda: None
) -> Iterator[Member]:
    """Yield the tests of an archive, in its order: the files named ``.json`` or ``.json.gz``.

    Args:
        archive: Seekable file, at its start.
        checkpoint: Called for each unpacked piece of at most 256 KiB. Its exceptions are passed on.

    Raises:
        DamagedError: The archive is damaged or truncated. Raised after all readable tests were
            yielded, including those behind a damaged place. Errors of reading ``archive`` itself
            are passed on unchanged, because they do not mean that the archive is damaged.
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
    """Return the content of a gzip file, or a fault if it is damaged or above the maximum."""
    content = bytearray()
    try:
        for piece in gzip_pieces(io.BytesIO(packed)):
            content += piece
            if len(content) > MAXIMUM_MEMBER_BYTES:
                return None, "is too large"
    except DamagedError as error:
        return None, f"cannot be unpacked: {error}"
    return bytes(content), ""
