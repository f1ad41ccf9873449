"""Reading archives: the members of a ``.tgz`` or ``.tar``, one by one, unpacked."""

import gzip
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

MAXIMUM_MEMBER_BYTES = 100 * 2**20
"""A larger one could not be loaded: BigQuery's limit for a row."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file in an archive.

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
    """The archive ends in the middle, or is none."""


def read_members(archive: IO[bytes]) -> Iterator[Member]:
    """The files of an archive, in its order; nothing but one of them is in memory.

    Raises:
        TruncatedError: When all that is readable was yielded.
    """
    try:
        with tarfile.open(fileobj=archive, mode="r|*") as tar:
            for entry in tar:
                if entry.isfile():
                    yield _member(tar, entry)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise TruncatedError(f"{type(error).__name__}: {error}") from error


def _member(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> Member:
    if entry.size > MAXIMUM_MEMBER_BYTES:
        return Member(name=entry.name, size=entry.size, content=None, fault="is too large")
    file = tar.extractfile(entry)
    if file is None:
        return Member(name=entry.name, size=entry.size, content=None, fault="is no file")
    content = file.read()
    if entry.name.endswith(".gz"):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError) as error:
            fault = f"cannot be unpacked: {error}"
            return Member(name=entry.name, size=entry.size, content=None, fault=fault)
    return Member(name=entry.name, size=entry.size, content=content)
