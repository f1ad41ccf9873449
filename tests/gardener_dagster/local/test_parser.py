import datetime as dt
import gzip
import io
import json
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gardener_dagster.local.reference.archives import TruncatedError, read_members
from gardener_dagster.local.reference.rows import DATATYPES, CorruptError, Origin, parse_member
from gardener_dagster.local.samples import make_samples
from gardener_dagster.warehouse.schemas import Field, schema_of

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
NOW = dt.datetime(2024, 3, 2, 12, tzinfo=dt.UTC)

real_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="M-Lab's sample data is not beside the project (../shared/data)"
)


def origin(name: str = "a.json") -> Origin:
    return Origin(
        archive_url="gs://archive-mlab/x.tgz",
        archive_size=10,
        filename=name,
        file_size=5,
        parsed=NOW,
    )


def parse(datatype: str, content: bytes, date: dt.date = dt.date(2020, 3, 18)) -> dict[str, Any]:
    return parse_member(datatype, content, date=date, origin=origin())


def unknown_fields(value: Any, fields: list[Field], path: str = "") -> Iterator[str]:
    """What BigQuery would refuse with "No such field"."""
    known = {field["name"].lower(): field for field in fields}
    for name, item in value.items():
        field = known.get(name.lower())
        if field is None:
            yield path + name
        elif field["type"] == "RECORD":
            for one in item if isinstance(item, list) else [item]:
                yield from unknown_fields(one, field["fields"], f"{path}{name}.")


# -- the real archive


def real_tests() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each test of the archive of 2020-03-18, as it is and as a row."""
    [path] = (DATA / "archive-mlab-demo/ndt/ndt7/2020/03/18").iterdir()
    with path.open("rb") as archive:
        for member in read_members(archive):
            assert member.content is not None
            yield json.loads(member.content), parse("ndt7", member.content)


@real_data
def test_the_real_archive_has_57_downloads_and_57_uploads() -> None:
    rows = [row for _, row in real_tests()]
    assert len(rows) == len({row["ID"] for row in rows}) == 114
    assert sum("Download" in row["Raw"] for row in rows) == 57
    assert sum("Upload" in row["Raw"] for row in rows) == 57


@real_data
def test_throughput_is_bytes_over_time_of_the_last_measurement() -> None:
    for test, row in real_tests():
        download = "Download" in test
        last = test["Download" if download else "Upload"]["ServerMeasurements"][-1]["TCPInfo"]
        moved = last["BytesAcked"] if download else last["BytesReceived"]
        assert row["A"]["MeanThroughputMbps"] == moved * 8 / last["ElapsedTime"]
        assert row["A"]["MinRTT"] == last["MinRTT"] / 1000
        assert row["A"]["LossRate"] == (last["BytesRetrans"] / last["BytesSent"] if download else 0)


@real_data
def test_rows_of_the_real_archive_fit_the_table() -> None:
    for _, row in real_tests():
        assert list(unknown_fields(row, schema_of("ndt7"))) == []


@real_data
def test_a_newer_test_loses_what_no_schema_has() -> None:
    [path] = (DATA / "samples/NDT7Result").iterdir()
    row = parse("ndt7", path.read_bytes())
    assert list(unknown_fields(row, schema_of("ndt7"))) == []
    assert row["ID"] == "ndt-rczlq_1666977535_000000000016912D"  # `_unsafe` is cut out
    assert row["Raw"]["Download"]["UUID"] == "ndt-rczlq_1666977535_unsafe_000000000016912D"
    measured = row["Raw"]["Download"]["ServerMeasurements"][0]
    assert set(measured) == {"BBRInfo", "TCPInfo"}


@real_data
@pytest.mark.parametrize(
    ("path", "datatype"),
    [
        ("HopAnnotation2", "hopannotation2"),
        ("Annotation2/ndt-njp6l_1585004303_00000000000170FA.json", "annotation2"),
        ("Annotation2/ndt-empty-geo.json", "annotation2"),
    ],
)
def test_real_annotations_fit_their_tables_and_have_no_region(path: str, datatype: str) -> None:
    place = DATA / "samples" / path
    [file] = place.iterdir() if place.is_dir() else [place]
    row = parse(datatype, file.read_bytes())
    assert list(unknown_fields(row, schema_of(datatype))) == []
    assert "should-be-cleared" not in json.dumps(row)
    assert row.get("id") == "ndt-njp6l_1585004303_00000000000170FA" or row.get("ID")


@real_data
def test_the_real_corrupt_annotation_is_refused_by_name() -> None:
    content = (DATA / "samples/Annotation2/ndt-corrupt.json").read_bytes()
    with pytest.raises(CorruptError, match=r"a\.json is not JSON"):
        parse("annotation2", content)


# -- rows


def test_a_test_with_neither_direction_has_no_id() -> None:
    row = parse("ndt7", b'{"Version": "v1"}')
    assert "ID" not in row
    assert "A" not in row
    assert row["Raw"] == {"Version": "v1"}


def test_the_parser_record_says_whence_a_row_is() -> None:
    row = parse("annotation2", b'{"UUID": "u"}')
    assert row["parser"]["ArchiveURL"] == "gs://archive-mlab/x.tgz"
    assert row["parser"]["Time"] == "2024-03-02T12:00:00Z"
    assert list(unknown_fields(row, schema_of("annotation2"))) == []


@pytest.mark.parametrize("datatype", sorted(DATATYPES))
@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff\xfe", b'"text"'])
def test_what_is_no_json_object_is_corrupt(datatype: str, content: bytes) -> None:
    with pytest.raises(CorruptError):
        parse(datatype, content)


# -- archives


def tgz(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def test_packed_members_are_unpacked() -> None:
    archive = tgz(**{"a.json": b"{}", "b.json.gz": gzip.compress(b'{"x": 1}'), "c.gz": b"no"})
    a, b, c = read_members(io.BytesIO(archive))
    assert (a.content, b.content, c.content) == (b"{}", b'{"x": 1}', None)
    assert "cannot be unpacked" in c.fault


def test_what_can_be_read_of_a_truncated_archive_is() -> None:
    chance = random.Random(1)
    archive = tgz(**{f"{n}.json": chance.randbytes(200_000) for n in range(9)})
    members = read_members(io.BytesIO(archive[: len(archive) // 2]))
    assert next(members).name == "0.json"
    with pytest.raises(TruncatedError):
        list(members)


def test_what_is_no_archive_says_so() -> None:
    with pytest.raises(TruncatedError):
        list(read_members(io.BytesIO(b"this is no archive")))


# -- samples


def test_samples_are_the_same_each_time(tmp_path: Path) -> None:
    days = [dt.date(2024, 3, 1), dt.date(2024, 3, 2)]
    first, second = tmp_path / "1", tmp_path / "2"
    assert make_samples(first, days) == make_samples(second, days)
    files = sorted(p.relative_to(first) for p in first.rglob("*.tgz"))
    assert files == sorted(p.relative_to(second) for p in second.rglob("*.tgz"))
    assert all((first / p).read_bytes() == (second / p).read_bytes() for p in files)


def test_the_parser_finds_in_samples_what_their_maker_says(tmp_path: Path) -> None:
    days = [dt.date(2024, 3, day) for day in (1, 2, 3)]
    for (datatype, date), expected in make_samples(tmp_path, days).items():
        archives = sorted((tmp_path / f"ndt/{datatype}/{date:%Y/%m/%d}").iterdir())
        rows, corrupt = [], 0
        for path in archives:
            for member in read_members(io.BytesIO(path.read_bytes())):
                assert member.content is not None
                try:
                    rows.append(parse(datatype, member.content, date))
                except CorruptError:
                    corrupt += 1
        ids = {row.get("ID", row.get("id")) for row in rows}
        assert (len(archives), len(rows), len(ids)) == (
            expected.archives,
            expected.rows_loaded,
            expected.raw_rows,
        )
        assert corrupt == (datatype == "ndt7")
        assert all(not list(unknown_fields(row, schema_of(datatype))) for row in rows)
