"""Load: what gets into the tmp partition, and what is said when it does not."""

import datetime as dt
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from google.cloud import bigquery

from gardener_dagster.warehouse.errors import NewField, ObjectsChanged, TooManyObjects, WrongDate
from gardener_dagster.warehouse.objects import LoadSource

if TYPE_CHECKING:
    from tests.gardener_dagster.warehouse.operations.conftest import Lab

DATE = dt.date(2024, 3, 1)


def test_missing_tables_are_made_partitioned_with_a_required_filter(lab: "Lab", rows: Any) -> None:
    lab.load([rows.ndt7("x")])
    for partition in (lab.tables().tmp_partition(DATE), lab.tables().raw_partition(DATE)):
        table = lab.client.get_table(partition.table_id)
        assert table.time_partitioning is not None
        assert table.time_partitioning.type_ == "DAY"
        assert table.time_partitioning.field == "date"
        assert table.require_partition_filter
        assert [f.name for f in table.schema] == ["id", "date", "parser", "a", "raw"]
        assert {f.mode for f in table.schema} == {"NULLABLE"}


def test_keys_in_capitals_land_in_the_columns(lab: "Lab", rows: Any) -> None:
    [row] = lab.rows(lab.load([rows.ndt7("x", throughput=12.5)]))
    assert row["id"] == "x"
    assert row["a"]["MeanThroughputMbps"] == 12.5
    assert row["parser"]["Time"] == dt.datetime(2024, 3, 2, 12, tzinfo=dt.UTC)
    assert row["raw"]["Download"]["ClientMeasurements"] == []


def test_the_result_tells_rows_objects_bytes_and_cost(lab: "Lab", rows: Any) -> None:
    source = lab.source({"a": [rows.ndt7("x")], "b": [rows.ndt7("y"), rows.ndt7("z")]})
    ctx = lab.context()
    result = lab.warehouse().load(lab.tables(), source, ctx)
    assert (result.rows, result.objects) == (3, 2)
    assert result.bytes_loaded > 100
    assert result.table == f"{lab.tables().tmp}.ndt7$20240301"
    [job] = result.bq_jobs
    assert job.kind == "load"
    assert job.id == ctx.job_id("load", lab.tables().tmp_partition(DATE))
    assert job.url.startswith("https://console.cloud.google.com/bigquery?project=")
    assert job.id in job.url
    assert job.running_seconds >= 0
    assert result.bytes_billed == 0


def test_every_job_is_labelled(lab: "Lab", rows: Any) -> None:
    source = lab.source({"a": [rows.ndt7("x")]})
    ctx = lab.context()
    result = lab.warehouse().load(lab.tables(), source, ctx)
    job = lab.client.get_job(result.bq_job_ids[0])
    assert job.labels == {
        "experiment": "ndt",
        "datatype": "ndt7",
        "date": "20240301",
        "operation": "load",
        "run": ctx.run_id,
        "inputs": source.version,
    }


def test_d11_leftovers_of_a_crash_do_not_come_along(lab: "Lab", rows: Any) -> None:
    lab.load([rows.ndt7("left"), rows.ndt7("over")])
    partition = lab.load([rows.ndt7("new")])
    assert lab.ids(partition) == ["new"]


def test_d11_stale_and_orphaned_objects_are_not_loaded(lab: "Lab", rows: Any) -> None:
    lab.write({"gone": [rows.ndt7("orphan")], "old": [rows.ndt7("stale")]})
    source = lab.source({"a": [rows.ndt7("x")], "b": [rows.ndt7("y")]}, stale=["old"])
    result = lab.warehouse().load(lab.tables(), source, lab.context())
    assert source.orphaned == (lab.object_name("gone"),)
    assert source.stale == (lab.object_name("old"),)
    assert result.objects == 2
    assert lab.ids(lab.tables().tmp_partition(DATE)) == ["x", "y"]


def test_a_wildcard_that_matches_another_object_is_loaded_by_names(lab: "Lab", rows: Any) -> None:
    """An object came after the objects were chosen: the pattern matches it too."""
    source = lab.source({"a": [rows.ndt7("x")], "b": [rows.ndt7("y")]})
    assert source.uris[0].endswith("*")
    lab.write({"late": [rows.ndt7("stray")]})
    result = lab.warehouse().load(lab.tables(), source, lab.context())
    assert (result.rows, result.objects) == (2, 2)
    assert lab.ids(lab.tables().tmp_partition(DATE)) == ["x", "y"]


def test_a_wildcard_that_matches_other_objects_and_cannot_be_named_is_an_error(
    lab: "Lab", rows: Any
) -> None:
    chosen = lab.source({"a": [rows.ndt7("x")], "b": [rows.ndt7("y")]})
    source = replace(chosen, names=(), objects=3)  # as after one of them was deleted
    with pytest.raises(ObjectsChanged, match=r"read 2 objects, 3 were chosen.*materialize tmp"):
        lab.warehouse().load(lab.tables(), source, lab.context())
    assert lab.ids(lab.tables().tmp_partition(DATE)) == []


def test_objects_without_a_byte_do_not_count(lab: "Lab", rows: Any) -> None:
    """What BigQuery counts of them is not documented, so both numbers are right."""
    source = replace(lab.source({"a": [rows.ndt7("x")]}), objects=2, empty=1, names=())
    assert lab.warehouse().load(lab.tables(), source, lab.context()).rows == 1


def test_a_load_touches_no_other_date(lab: "Lab", rows: Any) -> None:
    other = dt.date(2024, 3, 2)
    lab.load([rows.ndt7("x", date=other)], date=other)
    lab.load([rows.ndt7("y")])
    assert lab.ids(lab.tables().tmp_partition(other)) == ["x"]


def test_without_objects_the_partition_is_empty(lab: "Lab", rows: Any) -> None:
    partition = lab.load([rows.ndt7("x")])
    nothing = LoadSource(uris=(), objects=0, size=0)
    result = lab.warehouse().load(lab.tables(), nothing, lab.context())
    assert (result.rows, result.bq_jobs) == (0, ())
    assert lab.rows(partition) == []


def test_more_uris_than_a_load_job_takes_are_refused_before_anything_is_done(lab: "Lab") -> None:
    source = LoadSource(uris=("gs://b/o",) * 10_001, objects=10_001, size=1, stale=("x",) * 10_001)
    with pytest.raises(TooManyObjects, match=r"10,001 URIs.*delete the objects"):
        lab.warehouse().load(lab.tables(), source, lab.context())
    assert lab.faults.seen == []


def test_d13_a_new_field_is_an_error_that_names_field_object_and_fix(lab: "Lab", rows: Any) -> None:
    source = lab.source({"a": [rows.ndt7("x")], "b": [rows.ndt7("y", Jitter=1.5)]})
    with pytest.raises(NewField) as caught:
        lab.warehouse().load(lab.tables(), source, lab.context())
    error = caught.value
    assert error.field == "Jitter"
    assert error.object == lab.url("b")
    first = str(error).splitlines()[0]
    assert f"{lab.tables().tmp}.ndt7$20240301" in first
    assert "schemas/ndt7.json" in first
    assert error.bq_job_id in first
    assert lab.rows(lab.tables().tmp_partition(DATE)) == []


def test_a_new_field_is_added_to_all_tables_where_the_config_says_so(lab: "Lab", rows: Any) -> None:
    tables = lab.tables()
    warehouse = lab.warehouse(schema_update="add")
    lab.publish([rows.ndt7("x")])
    warehouse.join(tables, lab.context(), annotations_known_empty=True)
    raw = rows.ndt7("y")["Raw"] | {"Jitter": {"Mean": 1.5}}
    source = lab.source({"a": [rows.ndt7("y", Raw=raw, Hint="h")]})
    result = warehouse.load(tables, source, lab.context())
    assert result.rows == 1
    assert sorted(result.added_fields)[0].startswith("Hint STRING")
    assert any("Jitter" in field for field in result.added_fields)
    for partition in (
        tables.tmp_partition(DATE),
        tables.raw_partition(DATE),
        tables.joined_partition(DATE),
    ):
        schema = {f.name: f for f in lab.client.get_table(partition.table_id).schema}
        assert schema["Hint"].field_type == "STRING"
        [jitter] = [f for f in schema["raw"].fields if f.name == "Jitter"]
        assert [f.name for f in jitter.fields] == ["Mean"]
    warehouse.copy(tables, lab.context(), parse_had_no_files=False)
    [row] = lab.rows(tables.raw_partition(DATE))
    assert (row["id"], row["Hint"], row["raw"]["Jitter"]["Mean"]) == ("y", "h", 1.5)


def test_no_table_to_look_at_data_is_left_behind(lab: "Lab", rows: Any) -> None:
    source = lab.source({"a": [rows.ndt7("y", Hint="h")]})
    lab.warehouse(schema_update="add").load(lab.tables(), source, lab.context())
    names = [table.table_id for table in lab.client.list_tables(lab.tables().tmp)]
    assert names == ["ndt7"]


def test_an_unknown_datatype_is_learnt_from_its_data(lab: "Lab", rows: Any) -> None:
    row = rows.tcpinfo("x", archive="a", filename="f") | {
        "raw": {"Speed": 1.5, "Tags": ["a", "b"]},
        "note": "hi",
    }
    partition = lab.load([row], datatype="speed1")
    table = lab.client.get_table(partition.table_id)
    assert table.require_partition_filter
    assert table.time_partitioning is not None
    assert table.time_partitioning.field == "date"
    [found] = lab.rows(partition)
    assert found["raw"] == {"Speed": 1.5, "Tags": ["a", "b"]}
    assert found["note"] == "hi"


def test_rows_of_another_date_are_counted_and_an_object_is_named(lab: "Lab", rows: Any) -> None:
    wrong = dt.date(2024, 2, 29)
    source = lab.source(
        {
            "a": [rows.ndt7("x")],
            "b": [
                rows.ndt7("y", archive="b"),
                rows.ndt7("z", archive="b", Date=wrong.isoformat()),
                rows.ndt7("w", archive="b", Date=wrong.isoformat()),
            ],
        }
    )
    with pytest.raises(WrongDate) as caught:
        lab.warehouse().load(lab.tables(), source, lab.context())
    assert caught.value.rows == 2
    assert caught.value.object == lab.url("b")
    assert "2024-02-29" in str(caught.value)
    assert lab.rows(lab.tables().tmp_partition(DATE)) == []
    names = [table.table_id for table in lab.client.list_tables(lab.tables().tmp)]
    assert names == ["ndt7"]


def test_rows_without_a_date_are_of_another_date(lab: "Lab", rows: Any) -> None:
    source = lab.source({"a": [rows.ndt7("x"), rows.ndt7("y", Date=None)]})
    with pytest.raises(WrongDate, match="1 have none"):
        lab.warehouse().load(lab.tables(), source, lab.context())


def test_columns_of_an_older_raw_table_are_kept_and_copied_over(lab: "Lab", rows: Any) -> None:
    tables = lab.tables()
    lab.client.create_dataset(tables.raw)
    old = bigquery.Table(
        f"{lab.client.project}.{tables.raw}.ndt7",
        schema=[
            bigquery.SchemaField("ID", "STRING"),
            bigquery.SchemaField("date", "DATE"),
            bigquery.SchemaField("Legacy", "INTEGER"),
        ],
    )
    old.time_partitioning = bigquery.TimePartitioning(field="date")
    lab.client.create_table(old)
    raw = lab.publish([rows.ndt7("x", Legacy=7)])
    [row] = lab.rows(raw)
    assert (row["ID"], row["Legacy"], row["a"]["UUID"]) == ("x", 7, "x")
