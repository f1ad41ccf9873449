import gzip
import io
import random
import tarfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gardener_dagster.local.parser import archives
from gardener_dagster.local.parser.archives import Member, read_members
from gardener_dagster.local.parser.unpacking import DamagedError, gzip_pieces

Tgz = Callable[[Mapping[str, bytes]], bytes]


def read(archive: bytes) -> tuple[list[Member], str]:
    """The members, and why the archive ended before its end."""
    members: list[Member] = []
    try:
        for member in read_members(io.BytesIO(archive)):
            members.append(member)
    except DamagedError as error:
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
        assert [m.name for m in members] == [f"{n}.json" for n in range(9) if n != 5]
        assert "header" in fault


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


# -- D35: whatever is damaged, reading ends, and what is readable is read


@pytest.fixture
def tar_of() -> Callable[..., bytes]:
    """A tar file of some members, each with what stands ahead of its own header."""

    def tar_of_(members: Mapping[str, bytes], ahead: Mapping[str, bytes] | None = None) -> bytes:
        buffer = io.BytesIO()
        for name, content in members.items():
            buffer.write((ahead or {}).get(name, b""))
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            buffer.write(entry.tobuf(tarfile.USTAR_FORMAT) + padded(content))
        return buffer.getvalue() + bytes(1024)

    return tar_of_


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def pax(records: Mapping[str, str], *, declared: int | None = None) -> bytes:
    """An extended header."""
    content = b""
    for key, value in records.items():
        rest = f" {key}={value}\n".encode()
        length = next(n for n in range(len(rest), len(rest) + 9) if n == len(rest) + len(str(n)))
        content += str(length).encode() + rest
    entry = tarfile.TarInfo("pax")
    entry.type, entry.size = tarfile.XHDTYPE, len(content) if declared is None else declared
    return entry.tobuf(tarfile.GNU_FORMAT) + padded(content)


def gnu_sparse() -> bytes:
    """A sparse file of the old GNU format, with a number that is none."""
    entry = tarfile.TarInfo("sparse.json")
    entry.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    block[386:398] = b"no number at"
    return with_checksum(block)


def with_checksum(block: bytearray) -> bytes:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def huge() -> bytes:
    """A header whose size, in base 256, is 2 to the 90."""
    block = bytearray(tarfile.TarInfo("huge.json").tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"\x80" + (2**80).to_bytes(11, "big")
    return with_checksum(block)


SPARSE_1_0 = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
DAMAGES = {
    "a pax size of 30 nines": (pax({"size": "9" * 30}), "a size of 999"),
    "a negative pax size": (pax({"size": "-512"}), "a size of -512"),
    "a sparse file with a number that is none": (gnu_sparse(), "a header is damaged"),
    "sparse records": (pax(SPARSE_1_0 | {"GNU.sparse.realsize": "x"}), "is a sparse file"),
    "2,000 pax headers": (pax({"comment": "x"}) * 2000, "several extended headers"),
    "a record that is none": (pax({"comment": "x"})[:512] + padded(b"99 no"), "is no record"),
    "an extended header of a terabyte": (pax({}, declared=2**39), "has a size of"),
    "a size of 2 to the 80": (huge(), "huge.json has a size of"),
    "zeros": (bytes(512), "a block of zeros"),
    "noise": (random.Random(1).randbytes(512), "a header is damaged"),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("packed", [False, True])
def test_d35_a_damaged_header_costs_no_other_member(
    tar_of: Callable[..., bytes], files: dict[str, bytes], name: str, packed: bool
) -> None:
    ahead, said = DAMAGES[name]
    tar = tar_of(files, {"5.json": ahead})
    members, fault = read(gzip.compress(tar) if packed else tar)
    kept = {m.name: m.content for m in members if m.content is not None}
    assert {n: files[n] for n in files if n != "5.json"}.items() <= kept.items()
    assert kept.get("5.json", files["5.json"]) == files["5.json"]
    assert said in fault


@pytest.mark.timeout(20)
def test_d35_a_size_beyond_the_end_of_the_archive_ends_it(
    tar_of: Callable[..., bytes], files: dict[str, bytes]
) -> None:
    tar = tar_of(files, {"5.json": pax({"size": "999999999999"})})
    members, fault = read(gzip.compress(tar))
    assert [m.name for m in members if m.content] == [f"{n}.json" for n in range(5)]
    assert "it ends in the middle of 5.json" in fault


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_d35_a_flipped_bit_costs_no_other_member(data: st.DataObject) -> None:
    names = [f"2024/03/02/{n}.json" for n in range(6)]
    tar, ends = bytearray(), []
    for name in names:
        entry = tarfile.TarInfo(name)
        entry.size, entry.pax_headers = 700, {"MLAB.datatype": "ndt7"}
        tar += entry.tobuf(tarfile.PAX_FORMAT) + padded(name.encode().ljust(700, b"x"))
        ends.append(len(tar))
    tar += bytes(1024)
    at = data.draw(st.integers(0, ends[-1] - 1))
    tar[at] ^= 1 << data.draw(st.integers(0, 7))
    hit = next(n for n, end in enumerate(ends) if at < end)
    members, _ = read(bytes(tar))
    kept = {m.name: m.content for m in members}
    for name in names[:hit] + names[hit + 1 :]:
        assert kept.get(name) == name.encode().ljust(700, b"x"), f"byte {at}"


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_d35_what_is_ahead_of_a_damaged_place_in_a_packed_archive_is_kept(
    data: st.DataObject,
) -> None:
    chance = random.Random(data.draw(st.integers(0, 9)))
    contents = {f"{n}.json": chance.randbytes(3000).hex().encode() for n in range(8)}
    tar = bytearray()
    for name, content in contents.items():
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        tar += entry.tobuf(tarfile.USTAR_FORMAT) + padded(content)
    packed = bytearray(gzip.compress(tar + bytes(1024), mtime=0))
    at = data.draw(st.integers(0, len(packed) - 1))
    if data.draw(st.booleans()):
        packed[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del packed[at:]
    readable = zlib.decompressobj(wbits=31).decompress(packed[:at]) if at > 10 else b""
    members, fault = read(bytes(packed))
    kept = {m.name: m.content for m in members}
    end = 0
    for name, content in contents.items():
        end += 512 + len(padded(content))
        if end < len(readable) - 300:  # the damage may be in a length that was read ahead
            assert kept.get(name) == content, f"byte {at} of {len(packed)}"
    # A bit that nobody reads does no harm: the time in the header, a code that is not used.
    assert fault or kept == contents


def test_d35_bytes_ahead_of_damaged_gzip_data_are_not_lost_in_a_buffer() -> None:
    content = b"".join(b"%d " % n for n in range(9000))
    # A block of the type that there is not, behind 3/4 of the content.
    head = zlib.compressobj(wbits=31)
    packed = head.compress(content[: len(content) * 3 // 4]) + head.flush(zlib.Z_SYNC_FLUSH)
    packed += b"\x07" * 1000
    got: list[bytes] = []
    with pytest.raises(DamagedError, match="its gzip data is damaged: Error"):
        got.extend(gzip_pieces(io.BytesIO(packed)))
    assert b"".join(got) == content[: len(content) * 3 // 4]


def test_a_file_of_several_gzip_streams_is_read_whole_as_go_does(tgz: Tgz) -> None:
    streams = gzip.compress(b'{"a": ') + gzip.compress(b"") + gzip.compress(b"1}") + bytes(20)
    members, fault = read(tgz({"a.json.gz": streams}))
    assert ([m.content for m in members], fault) == ([b'{"a": 1}'], "")


def test_an_archive_of_several_gzip_streams_is_read_whole(
    tgz: Tgz, files: dict[str, bytes]
) -> None:
    tar = gzip.decompress(tgz(files))
    packed = b"".join(gzip.compress(tar[at : at + 30_000]) for at in range(0, len(tar), 30_000))
    members, fault = read(packed)
    assert {m.name: m.content for m in members} == files
    assert fault == ""


def test_content_that_unpacks_to_much_more_than_its_size_is_whole() -> None:
    content = bytes(3_000_000)
    assert b"".join(gzip_pieces(io.BytesIO(gzip.compress(content)))) == content


def test_what_the_checkpoint_raises_ends_the_reading(tgz: Tgz, files: dict[str, bytes]) -> None:
    class Enough(Exception):
        pass

    def checkpoint() -> None:
        raise Enough

    with pytest.raises(Enough):
        list(read_members(io.BytesIO(tgz(files)), checkpoint))
