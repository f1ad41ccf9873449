"""Reading archives: the tests in a ``.tgz`` or ``.tar``, one by one, unpacked.

Nothing but one member is in memory, however many there are. The ``MLAB.*`` records of pax headers
are passed over.
"""

import contextlib
import gzip
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Self, cast

MAXIMUM_MEMBER_BYTES = 100_000_000
"""Unpacked. The row of a larger one could not be loaded: BigQuery takes 100 MB a row."""

_SUFFIXES = (".json", ".json.gz")
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = 31  # zlib's code for a gzip header and its checksum
_DAMAGED = (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError)  # type: ignore[attr-defined] # missing in typeshed


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


class TruncatedError(ValueError):
    """The archive ends in the middle, is damaged, or is none."""


def read_members(archive: IO[bytes]) -> Iterator[Member]:
    """The tests of an archive, in its order: the files named ``.json`` or ``.json.gz``.

    Args:
        archive: At its start; it must be able to go back there.

    Raises:
        TruncatedError: When all that is readable was yielded. An error of reading ``archive``
            itself is passed on as it is: it says nothing of what the archive holds.
    """
    try:
        with (
            _unpacked(archive) as stream,
            _Tar.open(fileobj=stream, mode="r|", tarinfo=_StrictTarInfo) as tar,
        ):
            while (entry := tar.next()) is not None:
                tar.members.clear()  # or it would keep one for each member
                if entry.isfile() and entry.name.casefold().endswith(_SUFFIXES):
                    yield _member(tar, entry)
            while stream.read(2**16):  # to its end, where gzip has the checksum
                pass
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise TruncatedError(str(error)) from error


class _Tar(tarfile.TarFile):
    members: list[tarfile.TarInfo]  # what typeshed leaves out


class _StrictTarInfo(tarfile.TarInfo):
    """Tells a damaged header from the end of the archive; tarfile takes either for the end."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile_)
        except _DAMAGED as error:
            raise tarfile.ReadError(str(error)) from error


def _unpacked(archive: IO[bytes]) -> contextlib.AbstractContextManager[IO[bytes]]:
    magic = archive.read(len(_GZIP_MAGIC))
    archive.seek(0)
    if magic == _GZIP_MAGIC:
        return cast("contextlib.AbstractContextManager[IO[bytes]]", gzip.GzipFile(fileobj=archive))
    return contextlib.nullcontext(archive)


def _member(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> Member:
    content, fault = b"", "is too large"
    if entry.size <= MAXIMUM_MEMBER_BYTES:
        file = tar.extractfile(entry)
        content, fault = (file.read(), "") if file else (b"", "is no file")
    if not fault and entry.name.casefold().endswith(".gz"):
        content, fault = _unpack(content)
    return Member(name=entry.name, size=entry.size, content=None if fault else content, fault=fault)


def _unpack(packed: bytes) -> tuple[bytes, str]:
    """The content of a gzip file, or why there is none; never more than the maximum in memory."""
    unpacker = zlib.decompressobj(wbits=_GZIP_WINDOW)
    try:
        content = unpacker.decompress(packed, MAXIMUM_MEMBER_BYTES)
    except zlib.error as error:
        return b"", f"cannot be unpacked: {error}"
    if not unpacker.eof:
        too_large = len(content) == MAXIMUM_MEMBER_BYTES
        return b"", "is too large" if too_large else "cannot be unpacked: it is cut off"
    if unpacker.unused_data.strip(b"\0"):
        return b"", "cannot be unpacked: it goes on after its end"
    return content, ""
