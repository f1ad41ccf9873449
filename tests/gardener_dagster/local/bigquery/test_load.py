"""Load jobs, through the client and a Cloud Storage emulator."""

import datetime as dt
import io
import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from google.api_core.exceptions import BadRequest, GoogleAPICallError, NotFound
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
    assert lab.rows("t") == [
        {
            "id": "a",
            "date": dt.date(2024, 3, 1),
            "n": 1,
            "parser": {"Version": "v1", "Time": time},
            "items": [{"p": 1, "q": "x"}, {"p": 2, "q": None}],
            "tags": ["u", "v"],
        },
        {
            "id": "b",
            "date": dt.date(2024, 3, 1),
            "n": 2,
            "parser": {"Version": "v1", "Time": time},
            "items": [],
            "tags": [],
        },
    ]
    assert (job.output_rows, job.input_files, job.input_file_bytes) == (2, 1, _size(lab, "0.jsonl"))
    assert job.output_bytes == lab.client.get_table(f"{lab.dataset}.t$20240301").num_bytes


def _size(lab: "Lab", name: str) -> int:
    return int(lab.bucket.get_blob(name).size)


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


def test_unknown_fields_are_left_out_where_the_job_says_so(lab: "Lab", row: Any) -> None:
    lab.table()
    rows = [row("a", extra={"deep": [1]}, items=[{"p": 1, "z": 2}]), row("b")]
    lab.fill("t$20240301", rows, ignore_unknown_values=True)
    assert [one["items"] for one in lab.rows("t")] == [[{"p": 1, "q": None}], []]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"id": "a"', "Parser terminated before end of string"),
        ('{"id": "a}', "Closing quote expected in string"),
        ('{"id": "a" "n": 1}', "Expected , or } after key:value pair"),
        ('{"id": "a"} {"id": "b"}', "Parser terminated before end of string"),
        ("[1]", "Value encountered without start of object"),
        ("null", "Value encountered without start of object"),
        (
            '{"n": "x"}',
            "Could not convert value 'string_value: \"x\"' to integer. Field: n; Value: x",
        ),
        ('{"n": 1.5}', "Could not convert value 'double_value: 1.5' to integer. Field: n"),
        ('{"n": 9223372036854775808}', "to integer. Field: n; Value: 9223372036854775808"),
        ('{"n": true}', "Could not convert value 'bool_value: true' to integer"),
        ('{"n": [1]}', "Array specified for non-repeated field: n."),
        ('{"n": {"x": 1}}', "JSON object specified for non-record field: n"),
        ('{"date": "2024-13-01"}', "Could not convert value to date: Invalid date: '2024-13-01'"),
        ('{"date": "yesterday"}', "Could not convert value to date"),
        ('{"parser": {"Time": "x"}}', "Could not parse 'x' as a timestamp"),
        ('{"parser": "x"}', "Expected a JSON object. Field: parser; Value: x"),
        ('{"tags": "x"}', "Repeated field must be imported as a JSON array. Field: tags."),
        ('{"tags": ["x", null]}', "Only optional fields can be set to NULL. Field: tags"),
        ('{"items": [{"p": 1}, {"p": "z"}]}', "to integer. Field: items.p; Value: z"),
    ],
)
def test_what_is_wrong_with_a_row_is_said_as_bigquery_says_it(
    lab: "Lab", line: str, said: str
) -> None:
    lab.table()
    first = '{"id": "good", "date": "2024-03-01"}\n'
    uri = lab.put("bad.jsonl", first + line + "\n" + first)
    job = lab.begin_load(uri, "t")
    with pytest.raises(BadRequest):
        job.result()
    [detail] = [m for m in messages(job) if "JSON parsing error in row" in m]
    assert f"starting at position {len(first)}: " in detail
    assert said in detail
    assert detail.endswith(f"File: {uri}")
    assert lab.rows("t") == []


def test_bad_rows_are_left_out_up_to_a_number(lab: "Lab", row: Any) -> None:
    lab.table()
    lines = [json.dumps(row("a")), "{", json.dumps(row("b", n="x")), json.dumps(row("c"))]
    uri = lab.put("bad.jsonl", "\n".join(lines))
    job = lab.load(uri, "t$20240301", max_bad_records=2)
    assert [one["id"] for one in lab.rows("t")] == ["a", "c"]
    assert job.output_rows == 2
    assert job._properties["statistics"]["load"]["badRecords"] == "2"
    with pytest.raises(BadRequest, match="Rows: 3; errors: 2"):
        lab.load(uri, "t$20240301", max_bad_records=1)


def test_bigquerys_conversions(lab: "Lab") -> None:
    kinds = ["STRING", "BYTES", "INTEGER", "FLOAT", "BOOLEAN", "TIMESTAMP", "DATE", "TIME"]
    kinds += ["DATETIME", "NUMERIC", "JSON"]
    lab.table("k", [{"name": kind.lower(), "type": kind} for kind in kinds], day="")
    lab.fill(
        "k",
        [
            {
                "string": 5,
                "bytes": "YWJj",
                "integer": "-12",
                "float": "1e3",
                "boolean": "TRUE",
                "timestamp": "2024-03-01 01:02:03.5+02:00",
                "date": "2024-3-1",
                "time": "1:02:03.25",
                "datetime": "2024-03-01T10:00:00",
                "numeric": "1.25",
                "json": {"a": [1, None]},
            },
            {"string": True, "integer": 7.0, "float": 3, "timestamp": 1709251200, "json": "x"},
            {"string": "é\u0000ñ", "timestamp": "0001-01-01T00:00:00Z", "float": "NaN"},
        ],
    )
    first, second, third = lab.client.list_rows(f"{lab.dataset}.k")
    assert dict(first.items()) == {
        "string": "5",
        "bytes": b"abc",
        "integer": -12,
        "float": 1000.0,
        "boolean": True,
        "timestamp": dt.datetime(2024, 2, 29, 23, 2, 3, 500000, tzinfo=dt.UTC),
        "date": dt.date(2024, 3, 1),
        "time": dt.time(1, 2, 3, 250000),
        "datetime": dt.datetime(2024, 3, 1, 10),  # noqa: DTZ001 - a DATETIME has no zone
        "numeric": Decimal("1.25"),
        "json": {"a": [1, None]},
    }
    assert (second["string"], second["integer"], second["float"]) == ("true", 7, 3.0)
    assert second["timestamp"] == dt.datetime(2024, 3, 1, tzinfo=dt.UTC)
    assert second["json"] == "x"
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


def test_required_fields(lab: "Lab") -> None:
    fields: list[Any] = [
        {"name": "id", "type": "STRING", "mode": "REQUIRED"},
        {"name": "n", "type": "INTEGER"},
    ]
    lab.table("r", fields, day="")
    lab.fill("r", [{"id": "a"}])
    for bad in ({"n": 1}, {"id": None}):
        job = lab.begin_load(lab.put("bad.jsonl", [{"id": "b"}, bad]), "r")
        with pytest.raises(BadRequest):
            job.result()
        assert any("Missing required field: id." in message for message in messages(job))


def test_wildcards_gzip_by_content_and_blank_lines(lab: "Lab", row: Any) -> None:
    lab.table()
    lab.put("in/a.jsonl", [row("a")])
    lab.put("in/b.jsonl", "\n" + json.dumps(row("b")) + "\n\n", packed=True)
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


def test_objects_that_are_not_there_are_named(lab: "Lab") -> None:
    lab.table()
    for uri in (f"gs://{lab.bucket.name}/none", f"gs://{lab.bucket.name}/none/*", "gs://nobody/x*"):
        with pytest.raises(NotFound) as raised:
            lab.load(uri, "t")
        assert f"Not found: URI {uri}" in str(raised.value)


@pytest.mark.parametrize(
    ("uris", "said"),
    [
        ([f"gs://b/{number}" for number in range(10_001)], "Too many source URIs: 10001"),
        (["s3://b/x"], "must be a Google Cloud Storage location: s3://b/x"),
        (["gs://b/*/*"], "must not contain more than one"),
    ],
)
def test_uris_that_bigquery_refuses_make_no_job(lab: "Lab", uris: list[str], said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        lab.begin_load(uris, "t")


@pytest.mark.parametrize(
    ("destination", "disposition", "refused"),
    [
        ("t", "WRITE_APPEND", False),
        ("t$20240301", "WRITE_TRUNCATE", False),
        ("t", "WRITE_TRUNCATE", True),
        ("t", "WRITE_EMPTY", True),
    ],
)
def test_schema_updates_go_with_append_or_one_partition(
    lab: "Lab", row: Any, destination: str, disposition: str, refused: bool
) -> None:
    lab.table()
    schema = lab.client.get_table(f"{lab.dataset}.t").schema
    options = {
        "schema": [*schema, bigquery.SchemaField("new", "STRING")],
        "schema_update_options": ["ALLOW_FIELD_ADDITION"],
        "write_disposition": disposition,
    }
    uri = lab.put("new.jsonl", [row("a", new="x")])
    if refused:
        with pytest.raises(BadRequest, match="Schema update options should only be specified"):
            lab.load(uri, destination, **options)
        return
    lab.load(uri, destination, **options)
    assert [one["new"] for one in lab.rows("t")] == ["x"]


def test_a_new_field_without_the_option_is_refused(lab: "Lab", row: Any) -> None:
    lab.table()
    schema = lab.client.get_table(f"{lab.dataset}.t").schema
    with pytest.raises(BadRequest, match=r"Cannot add fields \(field: new\)"):
        lab.fill("t$20240301", [row("a")], schema=[*schema, bigquery.SchemaField("new", "STRING")])


def test_dispositions(lab: "Lab", row: Any) -> None:
    lab.table()
    uri = lab.put("a.jsonl", [row("a")])
    lab.load(uri, "t")  # WRITE_APPEND is the default
    lab.load(uri, "t", write_disposition="WRITE_APPEND")
    assert len(lab.rows("t")) == 2
    with pytest.raises(GoogleAPICallError, match="Already Exists: Table"):
        lab.load(uri, "t", write_disposition="WRITE_EMPTY")
    lab.load(uri, "t", write_disposition="WRITE_TRUNCATE")
    assert len(lab.rows("t")) == 1
    with pytest.raises(NotFound, match="Not found: Table"):
        lab.load(uri, "missing", create_disposition="CREATE_NEVER", autodetect=True)
    with pytest.raises(BadRequest, match="No schema specified on job or table"):
        lab.load(uri, "missing")


def test_a_missing_table_is_made_as_the_job_says(lab: "Lab", row: Any) -> None:
    lab.fill(
        "made$20240301",
        [row("a", n=1, items=[{"p": 1}], ratio=0.5, ok=True, note=None)],
        autodetect=True,
        time_partitioning=bigquery.TimePartitioning(field="Date"),
    )
    table = lab.client.get_table(f"{lab.dataset}.made")
    assert [(one.name, one.field_type, one.mode) for one in table.schema] == [
        ("ID", "STRING", "NULLABLE"),
        ("Date", "DATE", "NULLABLE"),
        ("Parser", "RECORD", "NULLABLE"),
        ("n", "INTEGER", "NULLABLE"),
        ("items", "RECORD", "REPEATED"),
        ("ratio", "FLOAT", "NULLABLE"),
        ("ok", "BOOLEAN", "NULLABLE"),
        ("note", "STRING", "NULLABLE"),
    ]
    assert table.schema[2].fields[1].field_type == "TIMESTAMP"
    assert table.time_partitioning is not None
    assert table.time_partitioning.field == "Date"
    assert table.num_rows == 1


def test_autodetection_widens_what_rows_disagree_about(lab: "Lab") -> None:
    rows = [{"a": 1, "b": "2024-03-01", "c": 1}, {"a": 2.5, "b": "soon", "c": "x", "d": [1]}]
    lab.fill("w", rows, autodetect=True)
    table = lab.client.get_table(f"{lab.dataset}.w")
    assert {one.name: (one.field_type, one.mode) for one in table.schema} == {
        "a": ("FLOAT", "NULLABLE"),
        "b": ("STRING", "NULLABLE"),
        "c": ("STRING", "NULLABLE"),
        "d": ("INTEGER", "REPEATED"),
    }
    assert sorted(row["c"] for row in lab.client.list_rows(table)) == ["1", "x"]


def test_data_may_come_with_the_call(lab: "Lab", row: Any) -> None:
    lab.table()
    config = bigquery.LoadJobConfig(
        source_format="NEWLINE_DELIMITED_JSON", write_disposition="WRITE_TRUNCATE"
    )
    destination = lab.ref("t$20240301")
    lab.client.load_table_from_json([row("a")], destination, job_config=config).result()
    assert [one["id"] for one in lab.rows("t")] == ["a"]
    # Without a size the client makes a resumable upload, in chunks.
    lines = "".join(json.dumps(row(str(number))) + "\n" for number in range(20_000))
    lab.client.load_table_from_file(
        io.BytesIO(lines.encode()), destination, job_config=config
    ).result()
    assert lab.client.get_table(destination).num_rows == 20_000
    config.schema = lab.client.get_table(destination).schema
    job = lab.client.load_table_from_json([{"z": 1}], destination, job_config=config)
    with pytest.raises(BadRequest):
        job.result()
    assert any("No such field: z." in message for message in messages(job))


def test_a_row_of_many_megabytes(lab: "Lab") -> None:
    lab.table("big", [{"name": "s", "type": "STRING"}], day="")
    lab.fill("big", [{"s": "x" * 20_000_000}, {"s": "y"}])
    assert lab.query("SELECT LENGTH(s) AS size FROM big ORDER BY size") == [
        {"size": 1},
        {"size": 20_000_000},
    ]


def test_other_formats_are_refused(lab: "Lab") -> None:
    config = bigquery.LoadJobConfig(source_format="CSV")
    with pytest.raises(GoogleAPICallError, match="the local BigQuery does not do this"):
        lab.client.load_table_from_uri("gs://b/x", lab.ref("t"), job_config=config)
