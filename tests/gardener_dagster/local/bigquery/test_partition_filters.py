"""Which queries read which partitions and columns, and what that costs."""

# ruff: noqa: E501 - queries read better on one line

from typing import TYPE_CHECKING, Any

import pytest
from google.api_core.exceptions import BadRequest, GoogleAPICallError
from google.cloud import bigquery

if TYPE_CHECKING:
    from tests.gardener_dagster.local.bigquery.conftest import Lab

MEBIBYTE = 2**20
REFUSED = r"Cannot query over table '{d}\.t' without a filter over column\(s\) 'date' that can be used for partition elimination"


@pytest.fixture
def filled(lab: "Lab", row: Any) -> "Lab":
    lab.table()
    for day in ("2024-03-01", "2024-03-02", "2024-03-03"):
        lab.fill(f"t${day.replace('-', '')}", [row("ab", day, n=1), row("c", day)])
    return lab


def read(lab: "Lab", sql: str, *parameters: Any) -> int:
    """How many partitions a query reads."""
    job = lab.job(sql, *parameters, dry_run=True)
    return int(job._properties["statistics"]["query"]["totalPartitionsProcessed"])


@pytest.mark.parametrize(
    ("sql", "partitions"),
    [
        ("SELECT id FROM t WHERE date = '2024-03-01'", 1),
        ("SELECT id FROM t WHERE '2024-03-01' = date", 1),
        ("SELECT id FROM t AS x WHERE x.date = DATE '2024-03-01'", 1),
        ("SELECT id FROM t WHERE date = @d", 1),
        ("SELECT id FROM t WHERE DATE = @d", 1),
        ("SELECT id FROM t WHERE date BETWEEN DATE_SUB(@d, INTERVAL 1 DAY) AND @d", 1),
        ("SELECT id FROM t WHERE date > '2024-03-01' AND n = 1", 2),
        ("SELECT id FROM t WHERE date IN ('2024-03-01', '2024-03-03')", 2),
        ("SELECT id FROM t WHERE date IN UNNEST([DATE '2024-03-01'])", 1),
        ("SELECT id FROM t WHERE (date = '2024-03-01' OR date = '2024-03-02')", 2),
        ("SELECT id FROM t WHERE date IS NOT NULL", 3),
        ("SELECT id FROM t WHERE date = '1999-01-01'", 0),
        ("SELECT id FROM (SELECT * FROM t) WHERE date = '2024-03-01'", 1),
        ("SELECT id FROM (SELECT id, date AS day FROM t) WHERE day = '2024-03-01'", 1),
        ("WITH x AS (SELECT id, date FROM t) SELECT id FROM x WHERE date = '2024-03-01'", 1),
        ("SELECT COUNT(*) FROM (SELECT date, COUNT(*) FROM t GROUP BY date) WHERE date = '2024-03-01'", 1),
        ("SELECT a.id FROM t AS a JOIN t AS b ON a.id = b.id AND b.date = '2024-03-01' WHERE a.date = '2024-03-02'", 2),
        ("SELECT a.id FROM t AS a LEFT JOIN t AS b ON a.id = b.id AND b.date = '2024-03-01' WHERE a.date = '2024-03-02'", 2),
    ],
)  # fmt: skip
def test_filters_leave_out_partitions(filled: "Lab", sql: str, partitions: int) -> None:
    day = bigquery.ScalarQueryParameter("d", "DATE", "2024-03-01")
    assert read(filled, sql, day) == partitions
    filled.query(sql, day)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT id FROM t",
        "SELECT COUNT(*) FROM t",
        "SELECT id FROM t WHERE id = 'a'",
        "SELECT id FROM t WHERE date = '2024-03-01' OR id = 'a'",
        "SELECT id FROM t WHERE CAST(date AS STRING) = '2024-03-01'",
        "SELECT id FROM t WHERE DATE_ADD(date, INTERVAL 1 DAY) = '2024-03-01'",
        "SELECT id FROM t WHERE date IN (SELECT date FROM t WHERE date = '2024-03-01')",
        "SELECT a.id FROM t AS a JOIN t AS b ON a.date = b.date WHERE a.date = '2024-03-01'",
        "SELECT a.id FROM t AS a LEFT JOIN t AS b ON a.date = '2024-03-01' WHERE b.date = '2024-03-02'",
        "SELECT id FROM (SELECT * FROM t LIMIT 5) WHERE date = '2024-03-01'",
        "SELECT id FROM (SELECT *, ROW_NUMBER() OVER (ORDER BY id) AS r FROM t) WHERE date = '2024-03-01'",
        "WITH x AS (SELECT * FROM t) SELECT a.id FROM x AS a, x AS b WHERE a.date = '2024-03-01'",
        "DELETE FROM t WHERE id = 'a'",
        "UPDATE t SET n = 2 WHERE id = 'a'",
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


def test_partitions_of_timestamps_and_of_months(lab: "Lab") -> None:
    lab.table("hours", [{"name": "ts", "type": "TIMESTAMP"}], day="ts")
    lab.fill(
        "hours", [{"ts": "2024-03-01T23:59:59Z"}, {"ts": "2024-03-02T00:00:00Z"}, {"ts": None}]
    )
    assert read(lab, "SELECT ts FROM hours WHERE ts >= '2024-03-02'") == 1
    assert read(lab, "SELECT ts FROM hours WHERE DATE(ts) = '2024-03-01'") == 1
    assert read(lab, "SELECT ts FROM hours WHERE TIMESTAMP_TRUNC(ts, DAY) = '2024-03-01'") == 1
    assert read(lab, "SELECT ts FROM hours WHERE ts IS NULL") == 1
    lab.query("CREATE TABLE months (d DATE) PARTITION BY DATE_TRUNC(d, MONTH)")
    lab.query("INSERT INTO months VALUES ('2024-03-01'), ('2024-03-31'), ('2024-04-01')")
    assert read(lab, "SELECT d FROM months WHERE d < '2024-03-15'") == 1
    assert lab.client.get_table(f"{lab.dataset}.months$202403").num_rows == 2


@pytest.mark.parametrize(
    ("columns", "size"),
    [
        ("COUNT(*)", 0),
        ("date", 2 * 8),
        ("id", 4 + 3),
        ("n", 8),
        ("id, n", 7 + 8),
        ("parser.Version", 2 * 4),
        ("parser", 2 * 4 + 2 * 8),
        ("COUNTIF(parser.Time IS NULL)", 2 * 8),
        ("*", 7 + 16 + 8 + 8 + 16),
    ],
)
def test_bytes_are_those_of_the_columns_that_are_used(
    filled: "Lab", columns: str, size: int
) -> None:
    job = filled.job(f"SELECT {columns} FROM t WHERE date = '2024-03-01'")  # noqa: S608
    job.result()
    assert job.total_bytes_processed == size
    assert job.total_bytes_billed == (10 * MEBIBYTE if size else 0)
    twice = filled.job(f"SELECT {columns} FROM t WHERE date < '2024-03-03'", dry_run=True)  # noqa: S608
    assert twice.total_bytes_processed == 2 * size


def test_bytes_do_not_depend_on_what_the_rows_hold(filled: "Lab") -> None:
    filled.query("DELETE FROM t WHERE date = '2024-03-01' AND id = 'c'")
    sql = "SELECT COUNT(*) FROM t WHERE date = '2024-03-01' AND id = 'ab' AND n = 1"
    assert filled.job(sql, dry_run=True).total_bytes_processed == 4 + 8


def test_bytes_of_arrays(lab: "Lab", row: Any) -> None:
    lab.table()
    lab.fill("t$20240301", [row("a", items=[{"p": 1, "q": "xyz"}, {"p": 2}], tags=["a", "bc"])])
    for columns, size in [("tags", 3 + 4), ("items", 16 + 5), ("items, tags", 28)]:
        job = lab.job(f"SELECT {columns} FROM t WHERE date = '2024-03-01'", dry_run=True)  # noqa: S608
        assert job.total_bytes_processed == size


def test_a_table_that_is_read_twice_is_paid_once(filled: "Lab") -> None:
    sql = "SELECT a.id FROM t AS a JOIN t AS b USING (id) WHERE a.date = '2024-03-01' AND b.date = '2024-03-01'"
    assert filled.job(sql, dry_run=True).total_bytes_processed == 7


def test_a_query_that_would_cost_too_much_is_refused(filled: "Lab") -> None:
    sql = "SELECT id FROM t WHERE date = '2024-03-01'"
    assert len(filled.query(sql, maximum_bytes_billed=10 * MEBIBYTE)) == 2
    job = filled.job(sql, maximum_bytes_billed=10 * MEBIBYTE - 1)
    with pytest.raises(
        GoogleAPICallError,
        match=r"Query exceeded limit for bytes billed: 10485759\. 10485760 or higher required\.",
    ):
        job.result()
    assert job.error_result["reason"] == "bytesBilledLimitExceeded"


def test_a_dry_run_does_nothing(filled: "Lab") -> None:
    before = len(list(filled.client.list_jobs()))
    options = {"destination": filled.ref("u"), "dry_run": True}
    job = filled.job("SELECT id FROM t WHERE date = '2024-03-01'", **options)
    assert (job.state, job.total_bytes_processed) == ("DONE", 7)
    assert [field.name for field in job.schema or ()] == ["id"]
    assert filled.job("DELETE FROM t WHERE date = '2024-03-01'", dry_run=True).state == "DONE"
    assert len(filled.rows("t")) == 6
    assert [one.table_id for one in filled.client.list_tables(filled.dataset)] == ["t"]
    with pytest.raises(BadRequest, match="Unrecognized name: x"):
        filled.job("SELECT x FROM t WHERE date = '2024-03-01'", dry_run=True)
    assert len(list(filled.client.list_jobs())) >= before
