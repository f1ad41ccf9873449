"""SELECT, through the client."""

# ruff: noqa: E501 - queries read better on one line

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import pytest
from google.api_core.exceptions import BadRequest, NotFound
from google.cloud import bigquery

if TYPE_CHECKING:
    from tests.gardener_dagster.local.bigquery.conftest import Clock, Lab

UTC = dt.UTC
Scalar = bigquery.ScalarQueryParameter


@pytest.fixture
def filled(lab: "Lab", row: Any) -> "Lab":
    lab.table()
    lab.fill(
        "t$20240301",
        [
            row("a", n=1, items=[{"p": 1, "q": "x"}, {"p": 2, "q": "y"}], tags=["u"]),
            row("a", n=2),
            row("b", n=None, parser=None),
        ],
    )
    lab.fill("t$20240302", [row("c", "2024-03-02", n=9)])
    return lab


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT * EXCEPT (parser, items, tags, date) FROM t WHERE date = '2024-03-02'", [("c", 9)]),
        ("SELECT t.* EXCEPT (items, tags, parser, date) FROM t AS t WHERE t.date = '2024-03-02'", [("c", 9)]),
        ("SELECT parser.Version FROM t WHERE date = '2024-03-02'", [("v1",)]),
        ("SELECT x.p FROM t, t.items AS x WHERE date = '2024-03-01' ORDER BY 1", [(1,), (2,)]),
        ("SELECT n, x.p FROM t LEFT JOIN UNNEST(items) AS x WHERE date = '2024-03-02'", [(9, None)]),
        ("SELECT id FROM t WHERE date = '2024-03-01' QUALIFY ROW_NUMBER() OVER (PARTITION BY id ORDER BY n DESC) = 1 ORDER BY id", [("a",), ("b",)]),
        ("SELECT id, n FROM t WHERE date = '2024-03-01' ORDER BY n", [("b", None), ("a", 1), ("a", 2)]),
        ("SELECT id, n FROM t WHERE date = '2024-03-01' ORDER BY n DESC", [("a", 2), ("a", 1), ("b", None)]),
        ("WITH t AS (SELECT id FROM t WHERE date = '2024-03-02') SELECT * FROM t", [("c",)]),
        ("WITH x AS (SELECT id FROM t WHERE date = '2024-03-02') SELECT * FROM x UNION ALL SELECT 'z'", [("c",), ("z",)]),
        ("SELECT l.id, r.n FROM t AS l JOIN t AS r USING (id) WHERE l.date = '2024-03-02' AND r.date = '2024-03-02'", [("c", 9)]),
        ("SELECT COUNT(*) FROM t WHERE date >= '2024-03-01'", [(4,)]),
        ("SELECT id, AVG(n) FROM t WHERE date = '2024-03-01' GROUP BY id HAVING COUNT(*) > 1", [("a", 1.5)]),
        ("SELECT id FROM t WHERE date = '2024-03-01' AND id NOT IN (SELECT id FROM t WHERE date = '2024-03-01' AND n IS NOT NULL)", [("b",)]),
        ("SELECT SUM(n) OVER () AS total FROM t WHERE date = '2024-03-02'", [(9,)]),
        ("SELECT id FROM `test-project`.{d}.t WHERE date = '2024-03-02'", [("c",)]),
        ("SELECT id FROM `test-project.{d}.t` WHERE date = '2024-03-02'", [("c",)]),
        ("SELECT t.id FROM test-project.{d}.t WHERE t.date = '2024-03-02'", [("c",)]),
        ("SELECT ARRAY_LENGTH(items) + ARRAY_LENGTH(tags) FROM t WHERE date = '2024-03-02'", [(0,)]),
    ],
)  # fmt: skip
def test_queries(filled: "Lab", sql: str, expected: list[Any]) -> None:
    rows = filled.job(sql.replace("{d}", filled.dataset)).result()
    assert [tuple(row) for row in rows] == expected


def test_columns_are_named_as_bigquery_names_them(filled: "Lab") -> None:
    rows = filled.job(
        "SELECT ID, parser.version, 1, n + 1, n AS c, t.N FROM t WHERE date = '2024-03-02'"
    ).result()
    assert [field.name for field in rows.schema] == ["ID", "version", "f0_", "f1_", "c", "N"]


@pytest.mark.parametrize(
    ("sql", "error", "said"),
    [
        ("SELECT nothing FROM t WHERE date = '2024-03-01'", BadRequest, "Unrecognized name: nothing"),
        ("SELECT FROM WHERE", BadRequest, "Syntax error: "),
        ("SELECT 'x", BadRequest, "Syntax error: "),
        ("", BadRequest, "Required parameter is missing: query"),
        ("-- nothing", BadRequest, "Unexpected end of script"),
        ("SELECT * FROM nowhere.t", NotFound, "Not found: Dataset test-project:nowhere"),
        ("SELECT * FROM missing", NotFound, r"Not found: Table test-project:\w+\.missing"),
        ("SELECT * FROM `t$20240301`", BadRequest, "no partition decorators"),
        ("SELECT n / (n - n) FROM t WHERE date = '2024-03-02'", BadRequest, "division by zero"),
        ("SELECT 1 / 0", BadRequest, "division by zero"),
        ("SELECT CAST(id AS INT64) FROM t WHERE date = '2024-03-01'", BadRequest, "Could not convert"),
        ("SELECT [[1]] AS a", BadRequest, "Cannot have an array of arrays: a"),
        ("SELECT @missing", BadRequest, "Query parameter 'missing' not found"),
        ("SELECT n, id, n FROM t WHERE date = '2024-03-02'", BadRequest, "Duplicate column names in the result.*: n"),
    ],
)  # fmt: skip
def test_errors(filled: "Lab", sql: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        filled.query(sql)


def test_a_result_replaces_just_its_partition(filled: "Lab") -> None:
    options = {
        "destination": filled.ref("t$20240301"),
        "write_disposition": "WRITE_TRUNCATE",
    }
    sql = "SELECT * FROM t WHERE date = @d QUALIFY ROW_NUMBER() OVER (PARTITION BY id ORDER BY n DESC) = 1"
    filled.job(sql, Scalar("d", "DATE", "2024-03-01"), **options).result()
    assert [(one["id"], one["n"]) for one in filled.rows("t")] == [("a", 2), ("b", None), ("c", 9)]
    with pytest.raises(
        BadRequest,
        match="Some rows belong to different partitions rather than destination partition 20240301",
    ):
        filled.query("SELECT * FROM t WHERE date = '2024-03-02'", **options)
    assert [one["id"] for one in filled.rows("t")] == ["a", "b", "c"]
    filled.query("SELECT * FROM t WHERE date = '2024-03-01' AND FALSE", **options)
    assert [one["id"] for one in filled.rows("t")] == ["c"]


def test_columns_are_matched_by_name_whatever_their_order(filled: "Lab") -> None:
    filled.query(
        "SELECT [STRUCT('z' AS Q, 5 AS P)] AS Items, n AS N, id AS ID, date,"
        " STRUCT(parser.Time AS Time, 'w' AS version) AS parser FROM t WHERE date = '2024-03-02'",
        destination=filled.ref("t$20240302"),
        write_disposition="WRITE_TRUNCATE",
    )
    [found] = filled.rows("t", "date = '2024-03-02'")
    assert found["items"] == [{"p": 5, "q": "z"}]
    assert found["parser"]["Version"] == "w"
    assert found["tags"] == []


def test_a_result_of_other_types_is_refused(filled: "Lab") -> None:
    for sql, said in [
        ("SELECT 1 AS id, date FROM t WHERE date = '2024-03-02'", "Field id has changed type from STRING to INTEGER"),
        ("SELECT 'x' AS extra, date FROM t WHERE date = '2024-03-02'", r"Cannot add fields \(field: extra\)"),
        ("SELECT [n] AS n, date FROM t WHERE date = '2024-03-02'", "changed mode from NULLABLE to REPEATED"),
    ]:  # fmt: skip
        with pytest.raises(BadRequest, match=said):
            filled.query(
                sql, destination=filled.ref("t$20240302"), write_disposition="WRITE_TRUNCATE"
            )


def test_new_fields_are_added_where_the_job_says_so(filled: "Lab") -> None:
    filled.query(
        "SELECT *, 'x' AS extra FROM t WHERE date = '2024-03-02'",
        destination=filled.ref("t$20240302"),
        write_disposition="WRITE_TRUNCATE",
        schema_update_options=["ALLOW_FIELD_ADDITION"],
    )
    assert [one["extra"] for one in filled.rows("t")] == [None, None, None, "x"]
    with pytest.raises(BadRequest, match="Schema update options should only be specified"):
        filled.query(
            "SELECT 1 AS a",
            destination=filled.ref("t"),
            write_disposition="WRITE_TRUNCATE",
            schema_update_options=["ALLOW_FIELD_ADDITION"],
        )


def test_a_missing_destination_is_named(lab: "Lab") -> None:
    options = {"write_disposition": "WRITE_TRUNCATE", "create_disposition": "CREATE_NEVER"}
    with pytest.raises(NotFound, match="Not found: Table"):
        lab.query("SELECT 1 AS a", destination=lab.ref("no"), **options)


def test_a_result_replaces_an_unpartitioned_table_and_its_schema(lab: "Lab") -> None:
    lab.table("x", [], day="")
    for sql in ("SELECT 1 AS a UNION ALL SELECT 2", "SELECT 'x' AS b"):
        lab.query(sql, destination=lab.ref("x"), write_disposition="WRITE_TRUNCATE")
    assert lab.query("SELECT * FROM x") == [{"b": "x"}]
    assert lab.client.get_table(f"{lab.dataset}.x").num_rows == 1


def test_json_of_a_row_has_all_its_columns(filled: "Lab") -> None:
    sql = "SELECT TO_JSON_STRING(t) AS text FROM t AS t WHERE date = '2024-03-02'"
    [row] = filled.query(sql)
    assert json.loads(row["text"]) == {
        "id": "c",
        "date": "2024-03-02",
        "n": 9,
        "parser": {"Version": "v1", "Time": "2024-03-02T01:02:03.123456Z"},
        "items": [],
        "tags": [],
    }


def test_information_schema(filled: "Lab") -> None:
    partitions = filled.query(
        f"SELECT * FROM `{filled.client.project}.{filled.dataset}.INFORMATION_SCHEMA.PARTITIONS`"  # noqa: S608
        " WHERE table_name = 't' AND REGEXP_CONTAINS(partition_id, r'^\\d{8}$') ORDER BY partition_id"
    )
    assert [(one["partition_id"], one["total_rows"]) for one in partitions] == [
        ("20240301", 3),
        ("20240302", 1),
    ]
    assert all(one["total_logical_bytes"] > 0 for one in partitions)
    assert abs(partitions[0]["last_modified_time"] - dt.datetime.now(UTC)) < dt.timedelta(minutes=5)


def test_results_come_page_by_page(lab: "Lab") -> None:
    job = lab.job("SELECT x FROM UNNEST(GENERATE_ARRAY(1, 12000)) AS x ORDER BY x DESC")
    rows = job.result(page_size=11_000)
    assert [len(list(page)) for page in rows.pages] == [10_000, 2000]
    assert rows.total_rows == 12_000
    again = lab.client.get_job(job.job_id)
    assert isinstance(again, bigquery.QueryJob)
    assert [row.x for row in again.result(start_index=11_998)] == [2, 1]
    again = lab.client.get_job(job.job_id)
    assert isinstance(again, bigquery.QueryJob)
    assert [row.x for row in again.result(max_results=2)] == [12_000, 11_999]


def test_results_expire_after_a_day(clocked: "Lab", clock: "Clock") -> None:
    job_id = clocked.job("SELECT CURRENT_TIMESTAMP() AS t, CURRENT_DATE() AS d").job_id

    def result() -> list[Any]:
        job = clocked.client.get_job(job_id)
        assert isinstance(job, bigquery.QueryJob)
        return [tuple(row) for row in job.result()]

    assert result() == [(dt.datetime(2024, 3, 2, 12, tzinfo=UTC), dt.date(2024, 3, 2))]
    clock.now += dt.timedelta(days=1, minutes=1)
    with pytest.raises(NotFound, match="Not found: Table"):
        result()
