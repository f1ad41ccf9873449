import gzip
import io
import random
import tarfile
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from gardener_dagster.local.parser import archives
from gardener_dagster.local.parser.archives import Member, TruncatedError, read_members

Tgz = Callable[[Mapping[str, bytes]], bytes]


def read(archive: bytes) -> tuple[list[Member], str]:
    """The members, and why the archive ended before its end."""
    members: list[Member] = []
    try:
        for member in read_members(io.BytesIO(archive)):
            members.append(member)
    except TruncatedError as error:
        return members, str(error)
    return members, ""


def test_members_are_unpacked_and_mlabs_headers_passed_over(tgz: Tgz) -> None:
    packed = gzip.compress(b'{"x": 1}')
    members, fault = read(tgz({"2024/a.json": b"{}", "b.json.gz": packed}))
    assert [(m.name, m.size, m.content) for m in members] == [
        ("2024/a.json", 2, b"{}"),
        ("b.json.gz", len(packed), b'{"x": 1}'),
    ]
    assert fault == ""


def test_an_unpacked_archive(tgz: Tgz) -> None:
    members, fault = read(gzip.decompress(tgz({"a.json": b"{}"})))
    assert ([m.content for m in members], fault) == ([b"{}"], "")


def test_what_is_no_test_is_passed_over() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        folder = tarfile.TarInfo("2024.json")
        folder.type = tarfile.DIRTYPE
        link = tarfile.TarInfo("link.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        for entry in (folder, link, tarfile.TarInfo("README"), tarfile.TarInfo("a.pcap.gz")):
            tar.addfile(entry)
    assert read(buffer.getvalue()) == ([], "")


@pytest.mark.parametrize(
    "packed",
    [
        b"no gzip",
        gzip.compress(b"{}" * 99, mtime=0)[:-12],
        gzip.compress(b"{}", mtime=0)[:-4] + b"abcd",
    ],
    ids=["other", "cut off", "checksum"],
)
def test_a_member_that_cannot_be_unpacked_does_not_end_the_archive(tgz: Tgz, packed: bytes) -> None:
    members, fault = read(tgz({"a.json.gz": packed, "b.json": b"{}"}))
    assert [m.content for m in members] == [None, b"{}"]
    assert "cannot be unpacked" in members[0].fault
    assert fault == ""


@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_a_member_that_is_too_large_is_not_read(
    tgz: Tgz, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(archives, "MAXIMUM_MEMBER_BYTES", 1000)
    content = b" " * 1001
    if name.endswith("gz"):
        content = gzip.compress(content)
    members, fault = read(tgz({name: content, "b.json": b"{}"}))
    assert [m.content for m in members] == [None, b"{}"]
    assert "too large" in members[0].fault
    assert fault == ""


@pytest.fixture
def files() -> dict[str, bytes]:
    chance = random.Random(1)
    return {f"{n}.json": chance.randbytes(20_000) for n in range(9)}


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("packed", [True, False])
def test_what_can_be_read_of_a_truncated_archive_is(
    tgz: Tgz, files: dict[str, bytes], share: float, packed: bool
) -> None:
    archive = tgz(files) if packed else gzip.decompress(tgz(files))
    members, fault = read(archive[: int(len(archive) * share)])
    assert 0 < len(members) < 9
    assert all(m.content == files[m.name] for m in members)
    assert fault


@pytest.mark.parametrize("ahead", [4, 8, 60])
def test_an_archive_that_lost_its_very_end_is_truncated(
    tgz: Tgz, files: dict[str, bytes], ahead: int
) -> None:
    members, fault = read(tgz(files)[:-ahead])
    assert len(members) <= 9
    assert fault


def test_a_damaged_header_is_not_taken_for_the_end(tgz: Tgz, files: dict[str, bytes]) -> None:
    tar = bytearray(gzip.decompress(tgz(files)))
    at = tar.index(b"5.json\0")
    tar[at + 148 : at + 156] = b"damaged!"  # where its checksum stands
    for archive in (bytes(tar), gzip.compress(tar)):
        members, fault = read(archive)
        assert [m.name for m in members] == [f"{n}.json" for n in range(5)]
        assert fault


@pytest.mark.parametrize(
    "content", [b"", b"this is no archive", gzip.compress(b"nor this" * 99, mtime=0)]
)
def test_what_is_no_archive_says_so(content: bytes) -> None:
    members, fault = read(content)
    assert members == []
    assert fault


def test_an_error_of_reading_is_not_the_archives(tgz: Tgz, files: dict[str, bytes]) -> None:
    class Broken(io.BytesIO):
        def read(self, *args: Any) -> bytes:
            if self.tell() > 50_000:
                raise ConnectionResetError("the network")
            return super().read(*args)

    with pytest.raises(ConnectionResetError, match="the network"):
        list(read_members(Broken(tgz(files))))
