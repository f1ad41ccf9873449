"""DML and DDL, through the client."""

from typing import TYPE_CHECKING, Any

import pytest
from google.api_core.exceptions import BadRequest, Conflict, GoogleAPICallError, NotFound

if TYPE_CHECKING:
    from tests.gardener_dagster.local.bigquery.conftest import Lab


@pytest.fixture
def filled(lab: "Lab", row: Any) -> "Lab":
    lab.table()
    lab.fill("t$20240301", [row("a", n=1), row("b", n=2)])
    lab.fill("t$20240302", [row("c", "2024-03-02", n=3)])
    return lab


def numbers(lab: "Lab") -> list[tuple[str, int]]:
    return [(one["id"], one["n"]) for one in lab.rows("t")]


def test_insert(filled: "Lab") -> None:
    job = filled.job(
        "INSERT INTO t (id, date, n) VALUES ('d', '2024-03-03', 4), ('e', '2024-03-01', NULL)"
    )
    job.result()
    assert (job.num_dml_affected_rows, job.statement_type) == (2, "INSERT")
    assert numbers(filled) == [("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", None)]
    assert filled.client.get_table(f"{filled.dataset}.t$20240303").num_rows == 1
    assert filled.rows("t", "id = 'd' AND date IS NOT NULL")[0]["tags"] == []
    job = filled.job(
        "INSERT t (id, date, n) SELECT UPPER(id), date, n FROM t WHERE date = '2024-03-02'"
    )
    job.result()
    assert ("C", 3) in numbers(filled)
    with pytest.raises(BadRequest, match="Column nope is not present"):
        filled.query("INSERT INTO t (nope) VALUES (1)")
    with pytest.raises(BadRequest):
        filled.query("INSERT INTO t (id, n) VALUES ('x', 'not a number')")
    assert len(numbers(filled)) == 6


def test_delete(filled: "Lab") -> None:
    job = filled.job("DELETE FROM t WHERE date = '2024-03-01' AND n = 1")
    job.result()
    assert (job.num_dml_affected_rows, job.statement_type) == (1, "DELETE")
    assert numbers(filled) == [("b", 2), ("c", 3)]
    assert filled.client.get_table(f"{filled.dataset}.t$20240301").num_rows == 1
    filled.query("DELETE t AS x WHERE x.date = '2024-03-01'")
    assert numbers(filled) == [("c", 3)]
    with pytest.raises(BadRequest, match="DELETE must have a WHERE clause"):
        filled.query("DELETE FROM t")


def test_update(filled: "Lab") -> None:
    job = filled.job("UPDATE t SET n = n * 10, tags = ['x'] WHERE date = '2024-03-01'")
    job.result()
    assert job.num_dml_affected_rows == 2
    assert numbers(filled) == [("a", 10), ("b", 20), ("c", 3)]
    filled.query("UPDATE t SET date = '2024-03-05' WHERE date = '2024-03-02'")
    assert filled.client.get_table(f"{filled.dataset}.t$20240305").num_rows == 1
    assert filled.client.get_table(f"{filled.dataset}.t$20240302").num_rows == 0
    with pytest.raises(BadRequest, match="UPDATE must have a WHERE clause"):
        filled.query("UPDATE t SET n = 1")


def test_merge(filled: "Lab") -> None:
    job = filled.job(
        "MERGE t AS x USING (SELECT 'a' AS id, 100 AS n UNION ALL SELECT 'z', 5) AS s"
        " ON x.id = s.id AND x.date = '2024-03-01'"
        " WHEN MATCHED THEN UPDATE SET n = s.n"
        " WHEN NOT MATCHED THEN INSERT (id, date, n) VALUES (s.id, '2024-03-04', s.n)"
        " WHEN NOT MATCHED BY SOURCE AND x.date = '2024-03-01' THEN DELETE"
    )
    job.result()
    assert job.num_dml_affected_rows == 3
    stats = job.dml_stats
    assert stats is not None
    assert (stats.inserted_row_count, stats.updated_row_count, stats.deleted_row_count) == (1, 1, 1)
    assert numbers(filled) == [("a", 100), ("c", 3), ("z", 5)]
    assert filled.client.get_table(f"{filled.dataset}.t").num_rows == 3


def test_truncate(filled: "Lab") -> None:
    filled.query("TRUNCATE TABLE t")
    assert numbers(filled) == []
    assert filled.client.get_table(f"{filled.dataset}.t").num_bytes == 0


def test_create_and_drop_a_table(lab: "Lab") -> None:
    job = lab.job(
        "CREATE TABLE made (id STRING NOT NULL OPTIONS (description = 'key'), date DATE,"
        " a STRUCT<b INT64, c ARRAY<STRING>>, x NUMERIC(10, 2))"
        " PARTITION BY date CLUSTER BY id OPTIONS (require_partition_filter = TRUE,"
        " partition_expiration_days = 3, description = 'd', labels = [('k', 'v')])"
    )
    job.result()
    assert (job.statement_type, job.ddl_operation_performed) == ("CREATE_TABLE", "CREATE")
    table = lab.client.get_table(f"{lab.dataset}.made")
    assert [(one.name, one.field_type, one.mode) for one in table.schema] == [
        ("id", "STRING", "REQUIRED"),
        ("date", "DATE", "NULLABLE"),
        ("a", "RECORD", "NULLABLE"),
        ("x", "NUMERIC", "NULLABLE"),
    ]
    assert table.schema[0].description == "key"
    assert table.schema[2].fields[1].mode == "REPEATED"
    assert table.time_partitioning is not None
    assert table.time_partitioning.expiration_ms == 3 * 86_400_000
    assert (table.require_partition_filter, table.description, table.labels) == (
        True,
        "d",
        {"k": "v"},
    )
    assert lab.job("CREATE TABLE IF NOT EXISTS made (x INT64)").result() is not None
    with pytest.raises(Conflict, match="Already Exists: Table"):
        lab.query("CREATE TABLE made (x INT64)")
    lab.query("CREATE OR REPLACE TABLE made (x INT64)")
    assert [one.name for one in lab.client.get_table(f"{lab.dataset}.made").schema] == ["x"]
    lab.query("DROP TABLE made")
    lab.query("DROP TABLE IF EXISTS made")
    with pytest.raises(NotFound):
        lab.query("DROP TABLE made")


def test_create_a_table_from_a_query(filled: "Lab") -> None:
    filled.query(
        "CREATE TABLE u PARTITION BY date AS SELECT id, date, n FROM t WHERE date = '2024-03-01'"
    )
    table = filled.client.get_table(f"{filled.dataset}.u")
    assert table.time_partitioning is not None
    assert (table.num_rows, table.time_partitioning.field) == (2, "date")
    filled.query("CREATE OR REPLACE TABLE u AS SELECT 1 AS a")
    assert filled.query("SELECT * FROM u") == [{"a": 1}]
    with pytest.raises(Conflict):
        filled.query("CREATE TABLE u AS SELECT 2 AS a")
    assert filled.query("SELECT * FROM u") == [{"a": 1}]


def test_alter_a_table(filled: "Lab") -> None:
    filled.query("ALTER TABLE t ADD COLUMN x STRUCT<y INT64>, ADD COLUMN IF NOT EXISTS n INT64")
    assert filled.rows("t")[0]["x"] is None
    filled.query("ALTER TABLE t SET OPTIONS (description = 'new')")
    assert filled.client.get_table(f"{filled.dataset}.t").description == "new"
    with pytest.raises(BadRequest, match="Column already exists: n"):
        filled.query("ALTER TABLE t ADD COLUMN n INT64")


def test_schemas(lab: "Lab") -> None:
    lab.query("CREATE SCHEMA ddl OPTIONS (location = 'EU')")
    assert lab.client.get_dataset("ddl").location == "EU"
    lab.query("CREATE SCHEMA IF NOT EXISTS ddl")
    lab.query("CREATE TABLE ddl.t (x INT64)")
    with pytest.raises(BadRequest, match="still in use"):
        lab.query("DROP SCHEMA ddl")
    lab.query("DROP SCHEMA ddl CASCADE")
    lab.query("DROP SCHEMA IF EXISTS ddl")


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE VIEW v AS SELECT 1 AS a",
        "CREATE TEMP FUNCTION f(x INT64) AS (x + 1)",
        "CREATE TABLE u LIKE t",
        "CREATE TABLE u (x INT64) OPTIONS (kms_key_name = 'k')",
        "ALTER TABLE t DROP COLUMN n",
        "EXPORT DATA OPTIONS (uri = 'gs://b/*') AS SELECT 1",
        "BEGIN TRANSACTION",
    ],
)
def test_what_is_not_done_is_refused(filled: "Lab", sql: str) -> None:
    with pytest.raises(GoogleAPICallError):
        filled.query(sql)
    assert len(numbers(filled)) == 3
