"""The schema files, and how schemas are merged."""

import json
import tarfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from gardener_dagster.warehouse.table_schemas import (
    Field,
    has_field,
    is_known,
    joined_schema,
    merge,
    schema_of,
)

DATATYPES = (
    "annotation2",
    "hopannotation2",
    "ndt5",
    "ndt7",
    "pcap",
    "scamper1",
    "switch",
    "tcpinfo",
)
TYPES = {"STRING", "INTEGER", "FLOAT", "BOOLEAN", "TIMESTAMP", "DATE", "RECORD"}
SHARED = Path(__file__).parents[4] / "shared" / "data"


def walk(fields: list[Field], prefix: str = "") -> list[tuple[str, Field]]:
    found = []
    for field in fields:
        path = prefix + field["name"]
        found += [(path, field), *walk(field.get("fields", []), f"{path}.")]
    return found


def test_there_is_a_file_for_each_datatype_and_no_other() -> None:
    folder = files("gardener_dagster.warehouse").joinpath("schemas")
    assert sorted(f.name for f in folder.iterdir()) == [f"{name}.json" for name in DATATYPES]


@pytest.mark.parametrize("datatype", DATATYPES)
def test_schemas_are_bigquerys_json(datatype: str) -> None:
    fields = walk(schema_of(datatype))
    paths = [path.casefold() for path, _ in fields]
    assert len(set(paths)) == len(paths)
    for path, field in fields:
        assert set(field) <= {"name", "type", "mode", "description", "fields"}, path
        assert field["type"] in TYPES, path
        assert field.get("mode", "NULLABLE") in {"NULLABLE", "REPEATED"}, path
        assert bool(field.get("fields")) == (field["type"] == "RECORD"), path
        assert path.count(".") < 15, path


@pytest.mark.parametrize("datatype", DATATYPES)
def test_all_tables_begin_with_the_common_columns(datatype: str) -> None:
    first = {field["name"]: field["type"] for field in schema_of(datatype)[:3]}
    assert first == {"id": "STRING", "date": "DATE", "parser": "RECORD"}
    parser = next(field for field in schema_of(datatype) if field["name"] == "parser")
    assert [field["name"] for field in parser["fields"]] == [
        "Version", "Time", "ArchiveURL", "Filename", "Priority", "GitCommit", "ArchiveSize",
        "FileSize",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("datatype", "columns"),
    [
        ("ndt7", ["a", "raw"]),
        ("ndt5", ["a", "raw"]),
        ("tcpinfo", ["a", "raw"]),
        ("switch", ["a", "raw"]),
        ("scamper1", ["raw"]),
        ("hopannotation2", ["raw"]),
        ("annotation2", ["server", "client"]),
        ("pcap", []),
    ],
)
def test_the_datatypes_have_their_own_columns(datatype: str, columns: list[str]) -> None:
    assert [field["name"] for field in schema_of(datatype)[3:]] == columns


def test_an_unknown_datatype_begins_with_the_common_columns() -> None:
    assert not is_known("speedtest9")
    assert [field["name"] for field in schema_of("speedtest9")] == ["id", "date", "parser"]


def unknown(value: Any, schema: list[Field], prefix: str) -> set[str]:
    """Paths in a JSON value that the schema does not have."""
    if isinstance(value, list):
        return set().union(*(unknown(item, schema, prefix) for item in value))
    if not isinstance(value, dict):
        return set() if has_field(schema, prefix) else {prefix}
    return set().union(*(unknown(v, schema, f"{prefix}.{k}") for k, v in value.items()))


def test_the_ndt7_schema_has_every_field_of_the_real_archive() -> None:
    archives = list(SHARED.glob("archive-mlab-demo/ndt/ndt7/**/*.tgz"))
    if not archives:
        pytest.skip("the real archive is not on this machine (../shared/data)")
    import gzip

    schema, missing = schema_of("ndt7"), set()
    with tarfile.open(archives[0]) as archive:
        for member in archive:
            data = archive.extractfile(member)
            assert data is not None
            missing |= unknown(json.loads(gzip.decompress(data.read())), schema, "raw")
    # An old server's name of BW; M-Lab's parsers have no field for it.
    assert missing <= {
        f"raw.{half}.ServerMeasurements.BBRInfo.MaxBandwidth" for half in ("Download", "Upload")
    }


def test_merge_adds_what_is_missing_and_keeps_the_rest() -> None:
    have: list[Field] = [
        {"name": "ID", "type": "STRING"},
        {"name": "raw", "type": "RECORD", "fields": [{"name": "A", "type": "INTEGER"}]},
    ]
    want: list[Field] = [
        {"name": "id", "type": "INTEGER"},
        {
            "name": "RAW",
            "type": "RECORD",
            "fields": [
                {"name": "a", "type": "FLOAT"},
                {"name": "B", "type": "STRING", "mode": "REQUIRED"},
            ],
        },
        {"name": "c", "type": "DATE", "mode": "REPEATED"},
    ]
    merged, added = merge(have, want)
    assert added == ("RAW.B STRING", "c DATE REPEATED")
    assert merged == [
        {"name": "ID", "type": "STRING"},
        {
            "name": "raw",
            "type": "RECORD",
            "fields": [{"name": "A", "type": "INTEGER"}, {"name": "B", "type": "STRING"}],
        },
        {"name": "c", "type": "DATE", "mode": "REPEATED"},
    ]
    assert len(have) == 2
    assert len(have[1]["fields"]) == 1, "the argument is left alone"
    assert merge(merged, want) == (merged, ())


def test_fields_are_found_whatever_their_case() -> None:
    assert has_field(schema_of("ndt7"), "RAW.download.servermeasurements.tcpinfo.RTT")
    assert not has_field(schema_of("ndt7"), "raw.Sidewards")


def test_a_joined_table_has_the_annotations_columns_before_the_datatypes() -> None:
    schema = joined_schema(schema_of("annotation2"), schema_of("ndt7"))
    assert [f["name"] for f in schema] == ["id", "date", "parser", "server", "client", "a", "raw"]
