import json
from collections.abc import Callable
from typing import Any

import pytest

from gardener_dagster.local.parser.rows import DATATYPES, CorruptError
from gardener_dagster.warehouse.table_schemas import Field, schema_of

Parse = Callable[..., dict[str, Any]]
Unknown = Callable[[dict[str, Any], list[Field]], list[str]]
Json = dict[str, Any]


def ndt7(parse: Parse, **halves: Json) -> Json:
    return parse("ndt7", json.dumps({"Version": "v1", **halves}).encode())


def half(*infos: Json, uuid: str = "ndt-x_1_2") -> Json:
    measurements = [{"TCPInfo": info} for info in infos]
    return {
        "UUID": uuid,
        "StartTime": "2024-03-02T00:00:01Z",
        "ServerMeasurements": measurements,
    }


LAST = {
    "BytesAcked": 1_000_000,
    "BytesReceived": 2_000_000,
    "ElapsedTime": 4_000_000,
    "MinRTT": 2500,
    "BytesSent": 1_000_000,
    "BytesRetrans": 10_000,
}


def test_a_download(parse: Parse) -> None:
    row = ndt7(parse, Download=half({"BytesAcked": 7}, LAST))
    assert list(row) == ["ID", "A", "Parser", "Date", "Raw"]
    assert row["A"] == {
        "UUID": "ndt-x_1_2",
        "TestTime": "2024-03-02T00:00:01Z",
        "CongestionControl": "bbr",
        "MeanThroughputMbps": 2.0,
        "MinRTT": 2.5,
        "LossRate": 0.01,
    }
    assert row["ID"] == "ndt-x_1_2"
    assert row["Date"] == "2020-03-18"


def test_an_upload(parse: Parse) -> None:
    row = ndt7(parse, Upload=half(LAST))
    assert row["A"]["MeanThroughputMbps"] == 4.0
    assert row["A"]["LossRate"] == 0


def test_unsafe_is_cut_out_of_the_id_and_stays_in_raw(parse: Parse) -> None:
    row = ndt7(parse, Download=half(LAST, uuid="ndt-x_1_unsafe_2"))
    assert row["ID"] == row["A"]["UUID"] == "ndt-x_1_2"
    assert row["Raw"]["Download"]["UUID"] == "ndt-x_1_unsafe_2"


def test_a_test_with_neither_direction_has_no_id(parse: Parse) -> None:
    row = ndt7(parse)
    assert list(row) == ["Parser", "Date", "Raw"]
    assert row["Raw"] == {"Version": "v1"}


def test_a_test_that_ended_before_its_first_snapshot_carried_nothing(parse: Parse) -> None:
    summary = ndt7(parse, Download=half())["A"]
    assert (summary["MeanThroughputMbps"], summary["MinRTT"], summary["LossRate"]) == (0, 0, 0)


@pytest.mark.parametrize("info", [{}, {"ElapsedTime": 0, "BytesAcked": 5, "BytesSent": 0}])
def test_a_snapshot_without_the_numbers_gives_no_rates(parse: Parse, info: Json) -> None:
    summary = ndt7(parse, Download=half(LAST, info))["A"]
    assert {"MeanThroughputMbps", "LossRate"} & summary.keys() == set()


def test_a_field_that_no_schema_has_is_not_written(parse: Parse, unknown: Unknown) -> None:
    test = half(LAST)
    test["ServerMeasurements"][0]["BBRInfo"] = {"MaxBandwidth": 7, "BW": 8}
    row = ndt7(parse, Download=test, New={"x": 1})
    assert unknown(row, schema_of("ndt7")) == []
    measurements = row["Raw"]["Download"]["ServerMeasurements"]
    assert measurements == [{"TCPInfo": LAST, "BBRInfo": {"BW": 8}}]


def test_d33_connections_are_kept_in_the_clients_measurements_only(parse: Parse) -> None:
    test, info = half(LAST), {"Client": "[::1]:1", "Server": "[::1]:443", "UUID": "u"}
    test["ServerMeasurements"][0]["ConnectionInfo"] = info
    test["ClientMeasurements"] = [{"ConnectionInfo": info}]
    written = ndt7(parse, Download=test)["Raw"]["Download"]
    assert written["ServerMeasurements"] == [{"TCPInfo": LAST}]
    assert written["ClientMeasurements"] == [{"ConnectionInfo": info}]


def test_an_annotation(parse: Parse) -> None:
    geo = {"City": "Köln", "Region": "OLD"}
    content = {
        "UUID": "u",
        "Timestamp": "2024-03-02T00:00:01Z",
        "Server": {"Site": "lga05", "Machine": "mlab1", "Geo": geo},
        "Client": {"Network": {"ASNumber": 7, "Systems": [{"ASNs": [7, 8]}]}, "Geo": None},
    }
    row = parse("annotation2", json.dumps(content).encode())
    assert list(row) == ["id", "date", "parser", "server", "client"]
    assert row["id"] == "u"
    assert row["server"] == {"Site": "lga05", "Machine": "mlab1", "Geo": {"City": "Köln"}}
    assert row["client"] == {"Network": {"ASNumber": 7, "Systems": [{"ASNs": [7, 8]}]}}


def test_a_hop_annotation(parse: Parse) -> None:
    content = {"ID": "i", "Annotations": {"Geo": {"City": "London", "Region": "OLD"}}}
    row = parse("hopannotation2", json.dumps(content).encode())
    assert list(row) == ["ID", "Parser", "Date", "Raw"]
    assert row["ID"] == "i"
    assert row["Raw"] == {"ID": "i", "Annotations": {"Geo": {"City": "London"}}}


def test_the_parser_record_says_whence_a_row_is(parse: Parse, unknown: Unknown) -> None:
    row = parse("annotation2", b'{"UUID": "u"}')
    version = row["parser"].pop("Version")
    assert version.startswith("reference-parser v")
    assert row["parser"] == {
        "Time": "2024-03-02T12:00:00Z",
        "ArchiveURL": "gs://archive-mlab/x.tgz",
        "Filename": "a.json",
        "Priority": 0,
        "GitCommit": "",
        "ArchiveSize": 10,
        "FileSize": 5,
    }
    assert unknown(row, schema_of("annotation2")) == []


@pytest.mark.parametrize("datatype", DATATYPES)
@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"\xff\xfe", b"[1]", b'"text"', b"null", b"NaN", b"[" * 100_000,
        b'{"UUID": 1, "ID": 1, "Version": 1}',
        b'{"Server": 1, "Annotations": 1, "Download": 1}',
    ],
)  # fmt: skip
def test_what_is_no_test_is_corrupt_and_named(parse: Parse, datatype: str, content: bytes) -> None:
    with pytest.raises(CorruptError, match=r"^a\.json"):
        parse(datatype, content)
