"""Dedup: one row per key, whatever the ties."""

import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest

from gardener_dagster.warehouse.errors import WarehouseError

if TYPE_CHECKING:
    from tests.gardener_dagster.warehouse.operations.conftest import Lab

DATE = dt.date(2024, 3, 1)
TCPINFO_KEY = ("id", "parser.ArchiveURL", "parser.Filename")


def test_the_newest_row_of_a_key_stays(lab: "Lab", rows: Any) -> None:
    partition = lab.load(
        [
            rows.ndt7("x", second=1, throughput=1.0),
            rows.ndt7("x", second=3, throughput=3.0),
            rows.ndt7("x", second=2, throughput=2.0),
            rows.ndt7("y"),
        ]
    )
    result = lab.warehouse().dedup(lab.tables(), ("id",), lab.context())
    assert (result.rows_before, result.rows, result.duplicates_removed) == (4, 2, 2)
    assert (result.keys.rows, result.keys.duplicates) == (2, 0)
    found = {row["id"]: row["a"]["MeanThroughputMbps"] for row in lab.rows(partition)}
    assert found == {"x": 3.0, "y": 1.0}


def test_d10_exact_duplicates_of_a_double_load_leave_one(lab: "Lab", rows: Any) -> None:
    same = [rows.ndt7("x", second=1), rows.ndt7("y", second=1)]
    partition = lab.load(same + same + same)
    result = lab.warehouse().dedup(lab.tables(), ("id",), lab.context())
    assert result.duplicates_removed == 4
    assert lab.ids(partition) == ["x", "y"]


def test_d10_rows_with_no_id_are_kept_and_counted(lab: "Lab", rows: Any) -> None:
    partition = lab.load(
        [
            rows.ndt7(None, second=1),
            rows.ndt7(None, second=1),
            rows.ndt7("", second=2),
            rows.ndt7("", second=3),
            rows.ndt7("x", second=1),
            rows.ndt7("x", second=2),
        ]
    )
    result = lab.warehouse().dedup(lab.tables(), ("id",), lab.context())
    assert (result.keys.keyless, result.duplicates_removed) == (4, 1)
    assert lab.ids(partition) == [None, None, "", "", "x"]


def test_d10_ties_are_broken_the_same_way_whatever_the_order(lab: "Lab", rows: Any) -> None:
    ties = [rows.ndt7("x", second=1, throughput=float(n)) for n in range(6)]
    survivors = set()
    for order in (ties, ties[::-1], ties[3:] + ties[:3]):
        partition = lab.load(order)
        lab.warehouse().dedup(lab.tables(), ("id",), lab.context())
        [row] = lab.rows(partition)
        survivors.add(row["a"]["MeanThroughputMbps"])
    assert len(survivors) == 1


def test_rows_without_a_parse_time_come_last(lab: "Lab", rows: Any) -> None:
    timeless = rows.ndt7("x", throughput=9.0)
    timeless["Parser"].pop("Time")
    partition = lab.load([timeless, rows.ndt7("x", throughput=1.0)])
    lab.warehouse().dedup(lab.tables(), ("id",), lab.context())
    [row] = lab.rows(partition)
    assert row["a"]["MeanThroughputMbps"] == 1.0


def test_d12_parts_of_one_tcpinfo_connection_are_not_duplicates(lab: "Lab", rows: Any) -> None:
    parts = [
        rows.tcpinfo("x", archive="a", filename="x.00000"),
        rows.tcpinfo("x", archive="a", filename="x.00001"),
        rows.tcpinfo("x", archive="b", filename="x.00001"),
    ]
    newer = rows.tcpinfo("x", archive="b", filename="x.00001", second=5)
    partition = lab.load([*parts, newer], datatype="tcpinfo")
    tables = lab.tables("tcpinfo")
    result = lab.warehouse().dedup(tables, TCPINFO_KEY, lab.context())
    assert (result.rows_before, result.rows) == (4, 3)
    found = {
        (row["parser"]["ArchiveURL"][-5:], row["parser"]["Filename"], row["parser"]["Time"].second)
        for row in lab.rows(partition)
    }
    assert found == {("a.tgz", "x.00000", 0), ("a.tgz", "x.00001", 0), ("b.tgz", "x.00001", 5)}


def test_a_clean_partition_is_not_rewritten(lab: "Lab", rows: Any) -> None:
    lab.load([rows.ndt7("x"), rows.ndt7("y"), rows.ndt7(None)])
    lab.faults.seen.clear()
    result = lab.warehouse().dedup(lab.tables(), ("id",), lab.context())
    assert (result.rows, result.duplicates_removed, result.keys.keyless) == (3, 0, 1)
    assert len(lab.faults.job_ids()) == 1
    assert len(result.bq_jobs) == 1


def test_the_first_query_reads_the_key_columns_only(lab: "Lab", rows: Any) -> None:
    lab.load([rows.ndt7(f"{n:032}", archive="b" * 2000) for n in range(500)])
    result = lab.warehouse().dedup(lab.tables(), ("id",), lab.context())
    [count] = result.bq_jobs
    assert "parser" not in count.sql.split("WHERE")[0].lower()
    assert count.bytes_processed < 500 * 200


def test_a_dataset_that_is_missing_is_named(lab: "Lab") -> None:
    with pytest.raises(WarehouseError, match=r"Not found: Dataset .*tmp_"):
        lab.warehouse().dedup(lab.tables(), ("id",), lab.context())


def test_other_dates_are_left_alone(lab: "Lab", rows: Any) -> None:
    other = dt.date(2024, 3, 2)
    untouched = lab.load([rows.ndt7("x", date=other)] * 2, date=other)
    lab.load([rows.ndt7("x")] * 2)
    lab.warehouse().dedup(lab.tables(), ("id",), lab.context())
    assert lab.ids(untouched) == ["x", "x"]


def test_the_key_cares_about_no_case(lab: "Lab", rows: Any) -> None:
    lab.load([rows.ndt7("x")] * 2)
    key = ("ID", "PARSER.archiveurl")
    result = lab.warehouse().dedup(lab.tables(), key, lab.context())
    assert result.duplicates_removed == 1


@pytest.mark.parametrize("key", [(), ("id` OR TRUE --",), ("id", "")])
def test_d14_a_key_that_is_no_column_never_reaches_bigquery(lab: "Lab", key: Any) -> None:
    with pytest.raises(ValueError, match=r"column"):
        lab.warehouse().dedup(lab.tables(), key, lab.context())
    assert lab.faults.seen == []
