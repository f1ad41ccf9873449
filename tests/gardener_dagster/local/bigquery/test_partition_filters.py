"""Partition filters and bytes: which partitions and columns a query reads."""

# ruff: noqa: E501 - queries read better on one line

from typing import TYPE_CHECKING, Any

import pytest
from google.api_core.exceptions import BadRequest, GoogleAPICallError
from google.cloud import bigquery

if TYPE_CHECKING:
    from tests.gardener_dagster.local.bigquery.conftest import Lab

REFUSED = r"Cannot query over table '{d}\.t' without a filter over column\(s\) 'date' that can be used for partition elimination"


@pytest.fixture
def filled(lab: "Lab", row: Any) -> "Lab":
    lab.table()
    for day in ("2024-03-01", "2024-03-02", "2024-03-03"):
        lab.fill(f"t${day.replace('-', '')}", [row("ab", day, n=1, tags=["x", "y"]), row("c", day)])
    return lab


def run(lab: "Lab", sql: str, **options: Any) -> bigquery.QueryJob:
    job = lab.job(sql, bigquery.ScalarQueryParameter("d", "DATE", "2024-03-01"), **options)
    job.result()
    return job


def read(lab: "Lab", sql: str) -> int:
    """How many partitions a query reads."""
    return int(run(lab, sql)._properties["statistics"]["query"]["totalPartitionsProcessed"])


@pytest.mark.parametrize(
    ("sql", "partitions"),
    [
        ("SELECT id FROM t WHERE date = '2024-03-01'", 1),
        ("SELECT id FROM t WHERE '2024-03-01' = date", 1),
        ("SELECT id FROM t AS x WHERE x.date = DATE '2024-03-01'", 1),
        ("SELECT id FROM t WHERE DATE = @d", 1),
        ("SELECT id FROM t WHERE date BETWEEN DATE_SUB(@d, INTERVAL 1 DAY) AND @d", 1),
        ("SELECT id FROM t WHERE date > '2024-03-01' AND n = 1", 2),
        ("SELECT id FROM t WHERE date IN ('2024-03-01', '2024-03-03')", 2),
        ("SELECT id FROM t WHERE (date = '2024-03-01' OR date = '2024-03-02')", 2),
        ("SELECT id FROM t WHERE date IS NOT NULL", 3),
        ("SELECT id FROM t WHERE date = '1999-01-01'", 0),
        ("SELECT a.id FROM t AS a JOIN t AS b ON a.id = b.id AND b.date = '2024-03-01' WHERE a.date = '2024-03-02'", 2),
        ("SELECT a.id FROM t AS a LEFT JOIN t AS b ON a.id = b.id AND b.date = '2024-03-01' WHERE a.date = '2024-03-02'", 2),
    ],
)  # fmt: skip
def test_filters_leave_out_partitions(filled: "Lab", sql: str, partitions: int) -> None:
    assert read(filled, sql) == partitions


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT COUNT(*) FROM t",
        "SELECT id FROM t WHERE id = 'a'",
        "SELECT id FROM t WHERE date = '2024-03-01' OR id = 'a'",
        "SELECT id FROM t WHERE CAST(date AS STRING) = '2024-03-01'",
        "SELECT id FROM t WHERE DATE_ADD(date, INTERVAL 1 DAY) = '2024-03-01'",
        "SELECT id FROM t WHERE date IN (SELECT date FROM t WHERE date = '2024-03-01')",
        "SELECT a.id FROM t AS a JOIN t AS b ON a.date = b.date WHERE a.date = '2024-03-01'",
        "SELECT a.id FROM t AS a LEFT JOIN t AS b ON a.date = '2024-03-01' WHERE b.date = '2024-03-02'",
        "SELECT id FROM (SELECT * FROM t LIMIT 5) WHERE date = '2024-03-01'",
    ],
)
def test_a_query_without_a_partition_filter_is_refused(filled: "Lab", sql: str) -> None:
    job = filled.job(sql)
    with pytest.raises(BadRequest, match=REFUSED.replace("{d}", filled.dataset)):
        job.result()
    assert job.error_result["reason"] == "invalidQuery"


def test_a_table_that_requires_no_filter_may_be_read_whole(lab: "Lab", row: Any) -> None:
    lab.table(required=False)
    lab.fill("t$20240301", [row("a")])
    assert read(lab, "SELECT id FROM t") == 1


@pytest.mark.parametrize(
    ("columns", "size"),
    [
        ("COUNT(*)", 0),
        ("id", 2 + 1),
        ("n", 8),
        ("id, n", 3 + 8),
        ("parser.Version", 2 * 2 + 2 * 8),
        ("tags", 2 * 8),
        ("*", 3 + 8 + 20 + 16),
        ("TO_JSON_STRING(t)", 3 + 8 + 20 + 16),
    ],
)
def test_bytes_are_those_of_the_columns_that_are_read(
    filled: "Lab", columns: str, size: int
) -> None:
    dates = 2 * 8  # the partitioning column is read, too
    job = run(filled, f"SELECT {columns} FROM t WHERE date = '2024-03-01'")  # noqa: S608
    assert job.total_bytes_processed == job.total_bytes_billed == dates + size
    twice = run(filled, f"SELECT {columns} FROM t WHERE date < '2024-03-03'")  # noqa: S608
    assert twice.total_bytes_processed == 2 * (dates + size)


def test_a_table_that_is_read_twice_counts_once(filled: "Lab") -> None:
    sql = "SELECT a.id FROM t AS a JOIN t AS b USING (id) WHERE a.date = @d AND b.date = @d"
    assert run(filled, sql).total_bytes_processed == 16 + 3


def test_a_query_that_reads_too_many_bytes_is_refused(filled: "Lab") -> None:
    sql = "SELECT id FROM t WHERE date = @d"
    run(filled, sql, maximum_bytes_billed=19)
    with pytest.raises(GoogleAPICallError, match=r"bytes billed: 18\. 19 or higher required\."):
        run(filled, sql, maximum_bytes_billed=18)
