"""Load jobs, through the client and a Cloud Storage emulator."""

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import pytest
from google.api_core.exceptions import BadRequest, NotFound
from google.cloud import bigquery

if TYPE_CHECKING:
    from tests.gardener_dagster.local.bigquery.conftest import Lab


def messages(job: bigquery.LoadJob) -> list[str]:
    return [error["message"] for error in job.errors or ()]


def test_keys_of_any_case_fill_their_columns(lab: "Lab", row: Any) -> None:
    lab.table()
    job = lab.fill(
        "t$20240301",
        [row("a", N=1, Items=[{"P": 1, "Q": "x"}, {"p": 2}], TAGS=["u", "v"]), row("b", n="2")],
    )
    time = dt.datetime(2024, 3, 1, 1, 2, 3, 123456, tzinfo=dt.UTC)
    both = {"date": dt.date(2024, 3, 1), "parser": {"Version": "v1", "Time": time}}
    items = [{"p": 1, "q": "x"}, {"p": 2, "q": None}]
    assert lab.rows("t") == [
        both | {"id": "a", "n": 1, "items": items, "tags": ["u", "v"]},
        both | {"id": "b", "n": 2, "items": [], "tags": []},
    ]
    size = lab.bucket.get_blob("0.jsonl").size
    assert (job.output_rows, job.input_files, job.input_file_bytes) == (2, 1, size)
    assert job.output_bytes == lab.client.get_table(f"{lab.dataset}.t$20240301").num_bytes


def test_a_load_replaces_its_partition_and_no_other(lab: "Lab", row: Any) -> None:
    lab.table()
    lab.fill("t$20240301", [row("a"), row("b")])
    lab.fill("t$20240302", [row("c", "2024-03-02")])
    lab.fill("t$20240301", [row("d")])
    assert [one["id"] for one in lab.rows("t")] == ["c", "d"]
    lab.fill("t$20240301", [])
    assert [one["id"] for one in lab.rows("t")] == ["c"]


def test_a_row_of_another_day_is_refused_and_nothing_changes(lab: "Lab", row: Any) -> None:
    lab.table()
    lab.fill("t$20240301", [row("a")])
    for bad in (row("c", "2024-03-02"), row("c") | {"Date": None}):
        with pytest.raises(
            BadRequest, match="Some rows belong to different partitions rather than"
        ):
            lab.fill("t$20240301", [row("b"), bad])
    assert [one["id"] for one in lab.rows("t")] == ["a"]


def test_an_unknown_field_is_named_with_its_object(lab: "Lab", row: Any) -> None:
    lab.table()
    lab.put("x/1.jsonl", [row("a")])
    uri = lab.put("x/2.jsonl", [row("b"), row("c", parser={"Version": "v", "Depth": {"x": 1}})])
    job = lab.begin_load(f"gs://{lab.bucket.name}/x/*", "t$20240301")
    with pytest.raises(BadRequest):
        job.result()
    assert job.error_result["reason"] == "invalid"
    assert "JSON table encountered too many errors, giving up" in job.error_result["message"]
    assert job.error_result["location"] == uri
    told = [error for error in job.errors if "No such field: parser.Depth." in error["message"]]
    assert told[0]["location"] == uri
    position = len(json.dumps(row("b"))) + 1
    assert f"starting at position {position}: No such field" in told[0]["message"]
    assert lab.rows("t") == []


def test_unknown_fields_are_ignored_where_the_job_says_so(lab: "Lab", row: Any) -> None:
    lab.table()
    rows = [row("a", extra={"deep": [1]}, items=[{"p": 1, "z": 2}]), row("b")]
    lab.fill("t$20240301", rows, ignore_unknown_values=True)
    assert [one["items"] for one in lab.rows("t")] == [[{"p": 1, "q": None}], []]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"id": "a"', "Parser terminated before end of string"),
        ('{"id": "a"} {"id": "b"}', "Parser terminated before end of string"),
        ("[1]", "Value encountered without start of object"),
        ('{"n": "x"}', "Could not convert value 'x' to integer. Field: n; Value: x"),
        ('{"n": 1.5}', "Could not convert value '1.5' to integer. Field: n"),
        ('{"n": 9223372036854775808}', "to integer. Field: n; Value: 9223372036854775808"),
        ('{"n": true}', "Could not convert value 'true' to integer"),
        ('{"n": [1]}', "Array specified for non-repeated field: n."),
        ('{"n": {"x": 1}}', "JSON object specified for non-record field: n"),
        ('{"date": "2024-13-01"}', "Could not convert value '2024-13-01' to date. Field: date"),
        ('{"parser": {"Time": "x"}}', "Could not convert value 'x' to timestamp"),
        # D38: in UTC they are beyond the years 1 to 9999.
        (
            '{"parser": {"Time": "0001-01-01T00:00:00+05:00"}}',
            "'0001-01-01T00:00:00+05:00' to time",
        ),
        ('{"parser": {"Time": "9999-12-31T23:59:59.5-01:00"}}', "'9999-12-31T23:59:59.5-01:00' to"),
        ('{"parser": {"Time": "0000-12-31 00:00:00"}}', "'0000-12-31 00:00:00' to timestamp"),
        ('{"parser": {"Time": -62135596801}}', "'-62135596801' to timestamp"),
        ('{"date": "0000-12-31"}', "'0000-12-31' to date"),
        ('{"parser": "x"}', "Expected a JSON object. Field: parser; Value: x"),
        ('{"tags": "x"}', "Repeated field must be imported as a JSON array. Field: tags."),
        ('{"tags": ["x", null]}', "Only optional fields can be set to NULL. Field: tags"),
        ('{"items": [{"p": 1}, {"p": "z"}]}', "to integer. Field: items.p; Value: z"),
    ],
)
def test_an_invalid_row_is_named_with_its_position(lab: "Lab", line: str, said: str) -> None:
    lab.table()
    first = '{"id": "good", "date": "2024-03-01"}\n'
    uri = lab.put("bad.jsonl", first + line + "\n" + first)
    job = lab.begin_load(uri, "t$20240301")
    with pytest.raises(BadRequest):
        job.result()
    [detail] = [m for m in messages(job) if "JSON parsing error in row" in m]
    assert f"starting at position {len(first)}: " in detail
    assert said in detail
    assert detail.endswith(f"File: {uri}")
    assert lab.rows("t") == []


def test_conversions(lab: "Lab") -> None:
    kinds = ["STRING", "INTEGER", "FLOAT", "BOOLEAN", "TIMESTAMP", "DATE"]
    lab.table("k", [{"name": kind.lower(), "type": kind} for kind in kinds], day="")
    lab.fill(
        "k",
        [
            {
                "string": 5,
                "integer": "-12",
                "float": "1e3",
                "boolean": "TRUE",
                "timestamp": "2024-03-01 01:02:03.5+02:00",
                "date": "2024-3-1",
            },
            {"string": True, "integer": 7.0, "float": 3, "timestamp": 1709251200},
            {"string": "é\u0000ñ", "timestamp": "0001-01-01T00:00:00Z", "float": "NaN"},
        ],
    )
    first, second, third = lab.query("SELECT * FROM k ORDER BY string")
    assert first == {
        "string": "5",
        "integer": -12,
        "float": 1000.0,
        "boolean": True,
        "timestamp": dt.datetime(2024, 2, 29, 23, 2, 3, 500000, tzinfo=dt.UTC),
        "date": dt.date(2024, 3, 1),
    }
    assert (second["string"], second["integer"], second["float"]) == ("true", 7, 3.0)
    assert second["timestamp"] == dt.datetime(2024, 3, 1, tzinfo=dt.UTC)
    assert third["string"] == "é\u0000ñ"
    assert third["timestamp"] == dt.datetime(1, 1, 1, tzinfo=dt.UTC)
    assert third["float"] != third["float"]


def test_empty_records_and_records_that_are_null(lab: "Lab") -> None:
    lab.table()
    lab.fill("t$20240301", [
        {"id": "a", "date": "2024-03-01", "parser": {}},
        {"id": "b", "date": "2024-03-01", "parser": None, "items": None},
        {"id": "c", "date": "2024-03-01", "items": [{}]},
    ])  # fmt: skip
    assert [(one["parser"], one["items"]) for one in lab.rows("t")] == [
        ({"Version": None, "Time": None}, []),
        (None, []),
        (None, [{"p": None, "q": None}]),
    ]


def test_wildcards_and_blank_lines(lab: "Lab", row: Any) -> None:
    lab.table()
    lab.put("in/a.jsonl", [row("a")])
    lab.put("in/b.jsonl", "\n" + json.dumps(row("b")) + "\n\n")
    lab.put("in/deep/c.jsonl", json.dumps(row("c")))  # no end of line
    lab.put("in/d.txt", "not JSON")
    lab.put("in/e.jsonl", "")
    job = lab.load(f"gs://{lab.bucket.name}/in/*.jsonl", "t$20240301")
    assert [one["id"] for one in lab.rows("t")] == ["a", "b", "c"]
    assert job.input_files == 4


def test_many_objects_are_loaded_in_several_batches(lab: "Lab", row: Any) -> None:
    lab.table()
    for number in range(205):
        lab.put(f"many/{number:03}.jsonl", [row(f"{number:03}")])
    lab.load(f"gs://{lab.bucket.name}/many/*", "t$20240301")
    assert [one["id"] for one in lab.rows("t")] == [f"{number:03}" for number in range(205)]


def test_missing_objects_are_named(lab: "Lab") -> None:
    lab.table()
    for uri in (f"gs://{lab.bucket.name}/none", f"gs://{lab.bucket.name}/none/*", "gs://nobody/x*"):
        with pytest.raises(NotFound) as raised:
            lab.load(uri, "t$20240301")
        assert f"Not found: URI {uri}" in str(raised.value)


@pytest.mark.parametrize(
    ("uris", "said"),
    [
        (["s3://b/x"], "must be a Google Cloud Storage location: s3://b/x"),
        (["gs://b/*/*"], "must not contain more than one"),
    ],
)
def test_invalid_uris_make_no_job(lab: "Lab", uris: list[str], said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        lab.begin_load(uris, "t")


def test_a_missing_table_is_named(lab: "Lab") -> None:
    uri = lab.put("a.jsonl", [{"a": 1}])
    with pytest.raises(NotFound, match="Not found: Table"):
        lab.load(uri, "missing", create_disposition="CREATE_NEVER", autodetect=True)
    lab.table("empty", [], day="")
    with pytest.raises(BadRequest, match="No schema specified on job or table"):
        lab.load(uri, "empty")


def test_a_schema_is_detected(lab: "Lab", row: Any) -> None:
    lab.table("x", [], day="")
    values = {"items": [{"p": 1}], "none": [], "ok": True, "note": None, "ts": "soon"}
    lab.fill("x", [row("a", n=1, **values), row("b", n=2.5, ts="2024-03-01")], autodetect=True)
    table = lab.client.get_table(f"{lab.dataset}.x")
    assert [(one.name, one.field_type, one.mode) for one in table.schema] == [
        ("ID", "STRING", "NULLABLE"),
        ("Date", "DATE", "NULLABLE"),
        ("Parser", "RECORD", "NULLABLE"),
        ("n", "FLOAT", "NULLABLE"),
        ("items", "RECORD", "REPEATED"),
        ("none", "STRING", "REPEATED"),
        ("ok", "BOOLEAN", "NULLABLE"),
        ("note", "STRING", "NULLABLE"),
        ("ts", "STRING", "NULLABLE"),
    ]
    assert table.schema[2].fields[1].field_type == "TIMESTAMP"
    assert table.num_rows == 2
    with pytest.raises(BadRequest, match="cannot be detected from empty data"):
        lab.fill("x", [], autodetect=True)


@pytest.mark.parametrize("other", [[1], {"x": 1}])
def test_rows_that_contradict_each_other_have_no_schema(lab: "Lab", other: Any) -> None:
    lab.table("x", [], day="")
    with pytest.raises(BadRequest, match=r"non-repeated field: a|Field a is a record"):
        lab.fill("x", [{"a": 1}, {"a": other}], autodetect=True)


def test_a_row_of_many_megabytes(lab: "Lab") -> None:
    lab.table("big", [{"name": "s", "type": "STRING"}], day="")
    lab.fill("big", [{"s": "x" * 15_000_000}, {"s": "y"}])
    assert lab.query("SELECT LENGTH(s) AS size FROM big ORDER BY size") == [
        {"size": 1},
        {"size": 15_000_000},
    ]
    job = lab.begin_load(lab.put("huge.jsonl", [{"s": "x" * 40_000_000}]), "big")
    with pytest.raises(BadRequest):
        job.result()
    assert any("Row size is larger than: 16777216" in message for message in messages(job))
