"""Against M-Lab's own archives and samples."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gardener_dagster.local.parser.archives import read_members
from gardener_dagster.local.parser.rows import CorruptError
from gardener_dagster.warehouse.table_schemas import Field, schema_of

Parse = Callable[..., dict[str, Any]]
Unknown = Callable[[dict[str, Any], list[Field]], list[str]]
Pairs = list[tuple[dict[str, Any], dict[str, Any]]]


@pytest.fixture
def tests(data: Path, parse: Parse) -> Pairs:
    """Each test of the archive of 2020-03-18, as it is and as a row."""
    [path] = (data / "archive-mlab-demo/ndt/ndt7/2020/03/18").iterdir()
    with path.open("rb") as archive:
        contents = [m.content for m in read_members(archive)]
    return [(json.loads(c), parse("ndt7", c)) for c in contents if c is not None]


def test_the_archive_has_57_downloads_and_57_uploads(tests: Pairs) -> None:
    rows = [row for _, row in tests]
    assert len(rows) == len({row["ID"] for row in rows}) == 114
    assert sum("Download" in row["Raw"] for row in rows) == 57
    assert sum("Upload" in row["Raw"] for row in rows) == 57


def test_rates_are_those_of_the_last_snapshot(tests: Pairs) -> None:
    for test, row in tests:
        download = test.get("Download") is not None
        last = test["Download" if download else "Upload"]["ServerMeasurements"][-1]["TCPInfo"]
        moved = last["BytesAcked"] if download else last["BytesReceived"]
        assert row["A"]["MeanThroughputMbps"] == moved * 8 / last["ElapsedTime"]
        assert row["A"]["MinRTT"] == last["MinRTT"] / 1000
        assert row["A"]["LossRate"] == (last["BytesRetrans"] / last["BytesSent"] if download else 0)


def test_nothing_of_the_archive_is_lost(tests: Pairs, unknown: Unknown) -> None:
    def written(value: Any) -> Any:
        """A test as M-Lab's parsers write it: no null, and no field for the old MaxBandwidth."""
        if isinstance(value, dict):
            kept = {k: v for k, v in value.items() if v is not None and k != "MaxBandwidth"}
            return {k: written(v) for k, v in kept.items()}
        return [written(v) for v in value] if isinstance(value, list) else value

    for test, row in tests:
        assert unknown(row, schema_of("ndt7")) == []
        assert row["Raw"] == written(test)


def test_a_newer_test_loses_what_no_schema_has(data: Path, parse: Parse, unknown: Unknown) -> None:
    [path] = (data / "samples/NDT7Result").iterdir()
    row = parse("ndt7", path.read_bytes())
    assert unknown(row, schema_of("ndt7")) == []
    assert row["ID"] == "ndt-rczlq_1666977535_000000000016912D"
    assert row["Raw"]["Download"]["UUID"] == "ndt-rczlq_1666977535_unsafe_000000000016912D"
    measured = row["Raw"]["Download"]["ServerMeasurements"]
    assert {tuple(m) for m in measured} == {("BBRInfo", "TCPInfo")}
    known = {f["name"] for f in _fields("ndt7", "raw", "Download", "ServerMeasurements", "TCPInfo")}
    assert set(measured[-1]["TCPInfo"]) == known


def _fields(datatype: str, *path: str) -> list[Field]:
    fields = schema_of(datatype)
    for name in path:
        fields = next(f["fields"] for f in fields if f["name"] == name)
    return fields


@pytest.mark.parametrize(
    "name", ["ndt-njp6l_1585004303_00000000000170FA.json", "ndt-empty-geo.json"]
)
def test_annotations(data: Path, parse: Parse, unknown: Unknown, name: str) -> None:
    content = (data / "samples/Annotation2" / name).read_bytes()
    row = parse("annotation2", content)
    assert unknown(row, schema_of("annotation2")) == []
    assert row["id"] == "ndt-njp6l_1585004303_00000000000170FA"
    assert row["server"]["Site"] == "lga1t"
    assert ("Geo" in row["client"]) == (name != "ndt-empty-geo.json")
    assert "should-be-cleared" not in json.dumps(row)


def test_a_hop_annotation(data: Path, parse: Parse, unknown: Unknown) -> None:
    [path] = (data / "samples/HopAnnotation2").iterdir()
    row = parse("hopannotation2", path.read_bytes())
    assert unknown(row, schema_of("hopannotation2")) == []
    assert row["ID"] == "20210818_1e0b318cf3c2_91.189.88.152"
    assert row["Raw"] == json.loads(path.read_bytes())


def test_the_corrupt_annotation_is_refused(data: Path, parse: Parse) -> None:
    content = (data / "samples/Annotation2/ndt-corrupt.json").read_bytes()
    with pytest.raises(CorruptError, match=r"a\.json is not JSON"):
        parse("annotation2", content)
