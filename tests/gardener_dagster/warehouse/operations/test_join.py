"""Join: each raw row once, with at most one annotation."""

import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest

from gardener_dagster.warehouse.errors import AnnotationsMissing, RefusedJoin

if TYPE_CHECKING:
    from tests.gardener_dagster.warehouse.operations.conftest import Lab

DATE = dt.date(2024, 3, 1)
BEFORE = dt.date(2024, 2, 29)


def sites(lab: "Lab") -> dict[str | None, str | None]:
    """The server's site of each joined row, by id."""
    found = lab.rows(lab.tables().joined_partition(DATE))
    return {row["id"]: (row["server"] or {}).get("Site") for row in found}


def test_columns_are_the_rows_then_the_annotations_then_the_datatypes(
    lab: "Lab", rows: Any
) -> None:
    lab.publish([rows.ndt7("x", throughput=4.5)])
    lab.publish([rows.annotation("x", "lga01")], datatype="annotation2")
    result = lab.warehouse().join(lab.tables(), lab.context(), annotations_known_empty=False)
    [row] = lab.rows(lab.tables().joined_partition(DATE))
    assert list(row) == ["id", "date", "parser", "server", "client", "a", "raw"]
    assert row["parser"]["Filename"] == "f.json.gz", "the row's parser, not the annotation's"
    assert row["client"]["Network"]["Systems"] == [{"ASNs": [64512]}]
    assert row["a"]["MeanThroughputMbps"] == 4.5
    assert (result.rows, result.annotations) == (1, 1)
    table = lab.client.get_table(lab.tables().joined_partition(DATE).table_id)
    assert table.require_partition_filter
    assert table.time_partitioning is not None


def test_a_row_without_annotation_is_joined_with_null(lab: "Lab", rows: Any) -> None:
    lab.publish([rows.ndt7("x"), rows.ndt7("y"), rows.ndt7(None), rows.ndt7("")])
    annotations = [rows.annotation(i, "lga01") for i in ("x", None, "")]
    lab.publish(annotations, datatype="annotation2")
    result = lab.warehouse().join(lab.tables(), lab.context(), annotations_known_empty=False)
    assert result.rows == 4
    assert sites(lab) == {"x": "lga01", "y": None, None: None, "": None}


def test_d15_annotations_that_were_never_made_are_refused_by_name(lab: "Lab", rows: Any) -> None:
    lab.publish([rows.ndt7("x")])
    lab.publish([rows.annotation("x", "lga01", date=BEFORE)], datatype="annotation2", date=BEFORE)
    missing = lab.tables().annotations_partition(DATE).id
    with pytest.raises(AnnotationsMissing) as caught:
        lab.warehouse().join(lab.tables(), lab.context(), annotations_known_empty=False)
    assert caught.value.partition == missing
    assert missing in str(caught.value)
    assert lab.rows(lab.tables().joined_partition(DATE)) == []


def test_d15_a_missing_annotation_table_is_refused_by_name(lab: "Lab", rows: Any) -> None:
    lab.publish([rows.ndt7("x")])
    with pytest.raises(AnnotationsMissing, match=r"annotation2\$20240301 were never made"):
        lab.warehouse().join(lab.tables(), lab.context(), annotations_known_empty=False)


def test_a_date_known_to_have_no_annotations_is_joined_without(lab: "Lab", rows: Any) -> None:
    lab.publish([rows.ndt7("x")])
    result = lab.warehouse().join(lab.tables(), lab.context(), annotations_known_empty=True)
    assert result.rows == 1
    [row] = lab.rows(lab.tables().joined_partition(DATE))
    assert list(row) == ["id", "date", "parser", "server", "client", "a", "raw"]
    assert row["server"] is None


def test_d16_annotations_of_two_days_do_not_multiply_rows(lab: "Lab", rows: Any) -> None:
    lab.publish([rows.ndt7("both"), rows.ndt7("before"), rows.ndt7("own")])
    lab.publish(
        [rows.annotation("both", "own01"), rows.annotation("own", "own01")],
        datatype="annotation2",
    )
    lab.publish(
        [
            rows.annotation("both", "bef01", date=BEFORE, second=99),
            rows.annotation("before", "bef01", date=BEFORE),
        ],
        datatype="annotation2",
        date=BEFORE,
    )
    result = lab.warehouse().join(lab.tables(), lab.context(), annotations_known_empty=False)
    assert result.rows == 3
    assert (result.annotations, result.annotations_before) == (2, 2)
    assert sites(lab) == {"both": "own01", "before": "bef01", "own": "own01"}


def test_d16_an_id_annotated_twice_on_one_date_gets_the_newer_one(lab: "Lab", rows: Any) -> None:
    lab.publish([rows.ndt7("x")])
    twice = [rows.annotation("x", "old01", second=1), rows.annotation("x", "new01", second=2)]
    lab.publish(twice, datatype="annotation2")
    result = lab.warehouse().join(lab.tables(), lab.context(), annotations_known_empty=False)
    assert result.rows == 1
    assert sites(lab) == {"x": "new01"}


def test_d16_a_join_after_new_annotations_replaces_the_partition(lab: "Lab", rows: Any) -> None:
    other = dt.date(2024, 3, 2)
    for date in (DATE, other):
        lab.publish([rows.ndt7("x", date=date)], date=date)
        lab.publish([rows.annotation("x", "old01", date=date)], datatype="annotation2", date=date)
        lab.warehouse().join(lab.tables(), lab.context(date), annotations_known_empty=False)
    lab.publish([rows.annotation("x", "new01", second=9)], datatype="annotation2")
    lab.warehouse().join(lab.tables(), lab.context(), annotations_known_empty=False)
    assert sites(lab) == {"x": "new01"}
    [row] = lab.rows(lab.tables().joined_partition(other))
    assert row["server"]["Site"] == "old01"


def test_annotations_two_days_before_are_not_read(lab: "Lab", rows: Any) -> None:
    date = dt.date(2024, 2, 28)
    lab.publish([rows.ndt7("x")])
    lab.publish([rows.annotation("x", "old01", date=date)], datatype="annotation2", date=date)
    lab.publish([rows.annotation("y", "new01")], datatype="annotation2")
    lab.warehouse().join(lab.tables(), lab.context(), annotations_known_empty=False)
    assert sites(lab) == {"x": None}


def test_where_raw_was_never_made_nothing_is_joined_and_no_table_touched(
    lab: "Lab", rows: Any
) -> None:
    lab.publish([rows.annotation("x", "lga01")], datatype="annotation2")
    result = lab.warehouse().join(lab.tables(), lab.context(), annotations_known_empty=False)
    assert result.rows == 0
    assert "raw" in result.skipped
    assert "never made" in result.skipped
    assert result.bq_jobs == ()
    datasets = {dataset.dataset_id for dataset in lab.client.list_datasets()}
    assert lab.tables().joined not in datasets


def test_a_joined_partition_is_not_emptied_because_raw_is_gone(lab: "Lab", rows: Any) -> None:
    raw = lab.publish([rows.ndt7("x")])
    lab.warehouse().join(lab.tables(), lab.context(), annotations_known_empty=True)
    lab.client.delete_table(raw.id)
    with pytest.raises(RefusedJoin, match="has no rows, but the joined partition has 1"):
        lab.warehouse().join(lab.tables(), lab.context(), annotations_known_empty=True)
    assert sites(lab) == {"x": None}
    result = lab.warehouse().join(
        lab.tables(), lab.context(), annotations_known_empty=True, may_empty=True
    )
    assert "emptied" in result.skipped
    assert sites(lab) == {}


def test_new_columns_of_raw_get_into_the_joined_table(lab: "Lab", rows: Any) -> None:
    tables, warehouse = lab.tables(), lab.warehouse(schema_update="add")
    lab.publish([rows.ndt7("x")])
    warehouse.join(tables, lab.context(), annotations_known_empty=True)
    warehouse.load(tables, lab.source({"a": [rows.ndt7("x", Hint="h")]}), lab.context())
    warehouse.copy(tables, lab.context(), parse_had_no_files=False)
    warehouse.join(tables, lab.context(), annotations_known_empty=True)
    [row] = lab.rows(tables.joined_partition(DATE))
    assert row["Hint"] == "h"


def test_columns_in_another_case_join_all_the_same(lab: "Lab", rows: Any) -> None:
    tables = lab.tables("hopannotation2")
    hop = {
        "ID": "x",
        "Parser": rows.ndt7("x")["Parser"],
        "Date": "2024-03-01",
        "Raw": {"ID": "x", "Annotations": {"Network": {"ASNumber": 1}}},
    }
    lab.publish([hop], datatype="hopannotation2")
    lab.publish([rows.annotation("x", "lga01")], datatype="annotation2")
    lab.warehouse().join(tables, lab.context(), annotations_known_empty=False)
    [row] = lab.rows(tables.joined_partition(DATE))
    assert row["server"]["Site"] == "lga01"
