"""Reading a tar file of which any part may be damaged.

``tarfile`` stops at the first damaged header, and the values of a header can make it read without
end (a size of 30 digits), exhaust memory (a large extended header) or raise any exception (a sparse
file's numbers). This reader rejects implausible headers and searches for the next valid one.
``tarfile`` decodes the header blocks.
"""

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gardener_dagster.local.parser.unpacking import Stream

BLOCK = 512
_ZEROS = bytes(BLOCK)
_MAGIC = slice(257, 262)  # where a header has b"ustar"
_LARGEST = 2**40  # bytes of a member; a header with more is damaged
_LARGEST_EXTENSION = 2**20  # bytes of an extended header: a name, and records of under 1 kB
_WITHOUT_CONTENT = (
    tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
)  # fmt: skip
_EXTENSIONS = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class File:
    """A regular file.

    Attributes:
        name: Its path.
        size: Size in bytes.
        content: ``None`` if it is too large, or sparse.
        fault: Why it has no content.
    """

    name: str
    size: int
    content: bytes | None
    fault: str = ""


@dataclass(kw_only=True)
class _Extension:
    """Values in extended headers for the next member."""

    name: str = ""
    size: int | None = None
    sparse: bool = False
    count: int = 0


class TarReader:
    """Iterates over the wanted regular files of a tar file, in its order.

    Attributes:
        damage: The first damage and its position; "" if there is none. Final after iterating.
    """

    def __init__(
        self, stream: Stream, *, wanted: Callable[[str], bool], maximum_bytes: int
    ) -> None:
        """Prepare to read. Nothing is read yet.

        Args:
            stream: The tar file, unpacked.
            wanted: Returns whether the file with this path is wanted.
            maximum_bytes: Larger files are yielded without their content.
        """
        self._stream, self._wanted, self._maximum = stream, wanted, maximum_bytes
        self._extension = _Extension()
        self._in_order = True  # False: searching for the next valid header
        self.damage = ""

    def __iter__(self) -> Iterator[File]:
        """Yield the wanted files that are readable."""
        while (header := self._next_header()) is not None:
            if header.type in _EXTENSIONS:
                self._extend(header)
                continue
            file = self._file(header)
            self._extension = _Extension()
            if file is not None:
                yield file
        while self._stream.read(2**16):  # to the end, where gzip has its checksum
            pass
        if self._stream.fault:
            self._damaged(self._stream.fault)

    def _damaged(self, what: str) -> None:
        self.damage = self.damage or f"{what}, at byte {self._stream.position} unpacked"

    def _ended(self, where: str) -> None:
        self._damaged(self._stream.fault or f"it ends {where}")

    def _next_header(self) -> tarfile.TarInfo | None:
        """Return the next plausible header; ``None`` at the end."""
        while True:
            block = self._stream.read(BLOCK)
            if block == _ZEROS and self._in_order:
                block = self._stream.read(BLOCK)
                if block in (_ZEROS, b""):
                    return None
                self._damaged("a block of zeros is not its end")
            if len(block) < BLOCK:
                self._ended("in the middle of a header" if block else "without an end mark")
                return None
            if (header := self._header(block)) is not None:
                return header

    def _header(self, block: bytes) -> tarfile.TarInfo | None:
        if not self._in_order and block[_MAGIC] != b"ustar":
            return None
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "backslashreplace")
        except (tarfile.HeaderError, ValueError) as error:
            self._bad_header(f"a header is damaged: {error}")
            return None
        largest = _LARGEST_EXTENSION if header.type in _EXTENSIONS else _LARGEST
        if not 0 <= header.size <= largest:
            self._bad_header(f"{header.name} has a size of {header.size} bytes")
            return None
        self._in_order = True
        return header

    def _bad_header(self, what: str) -> None:
        self._damaged(what)
        self._in_order = False
        self._extension = _Extension()  # it belonged to this header's member

    def _extend(self, header: tarfile.TarInfo) -> None:
        extension = self._extension
        content = self._stream.read(header.size)
        if len(content) < header.size or not self._stream.skip(-header.size % BLOCK):
            self._ended("in the middle of an extended header")
            return
        if header.type == tarfile.GNUTYPE_LONGNAME:
            extension.name = content.rstrip(b"\0").decode("utf-8", "backslashreplace")
        elif header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
            extension.count += 1
            if extension.count > 1:
                self._damaged("a member has several extended headers")
            try:
                _read_records(extension, content)
            except ValueError as error:
                self._damaged(f"an extended header is damaged: {error}")

    def _file(self, header: tarfile.TarInfo) -> File | None:
        if header.type in _WITHOUT_CONTENT:
            return None
        extension = self._extension
        name = extension.name or header.name
        size = header.size if extension.size is None else extension.size
        sparse = extension.sparse or header.type == tarfile.GNUTYPE_SPARSE
        if sparse:
            self._damaged(f"{name} is a sparse file")
        if not header.isreg() or not self._wanted(name):
            self._pass_over(name, size)
            return None
        if sparse or size > self._maximum:
            self._pass_over(name, size)
            fault = "is a sparse file" if sparse else "is too large"
            return File(name=name, size=size, content=None, fault=fault)
        content = self._stream.read(size)
        if len(content) < size:
            self._ended(f"in the middle of {name}")
            return None
        self._pass_over(name, 0, padding=-size % BLOCK)
        return File(name=name, size=size, content=content)

    def _pass_over(self, name: str, size: int, padding: int | None = None) -> None:
        if not self._stream.skip(size + (-size % BLOCK if padding is None else padding)):
            self._ended(f"in the middle of {name}")


def _read_records(extension: _Extension, content: bytes) -> None:
    """Read the records of a pax header: ``<length of the record> <key>=<value>`` and a newline.

    Raises:
        ValueError: A record is malformed; the records before it were read.
    """
    at = 0
    while at < len(content) and content[at]:
        digits = content[at : at + 20].partition(b" ")[0]
        end = at + (int(digits) if digits.isdigit() and len(digits) < 8 else 0)
        key, equals, value = content[at + len(digits) + 1 : end - 1].partition(b"=")
        if not equals or end > len(content) or content[end - 1 : end] != b"\n":
            raise ValueError(f"{content[at : at + 40]!r} is no record")
        if key == b"path":
            extension.name = value.decode("utf-8", "backslashreplace")
        elif key.startswith(b"GNU.sparse."):
            extension.sparse = True
        elif key == b"size":
            if not value.isdigit() or len(value) > 13 or int(value) > _LARGEST:
                raise ValueError(f"a size of {value[:40].decode('ascii', 'backslashreplace')}")
            extension.size = int(value)
        at = end
