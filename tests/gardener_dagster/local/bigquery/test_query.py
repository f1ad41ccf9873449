"""SELECT, through the client."""

# ruff: noqa: E501 - queries read better on one line

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import pytest
from google.api_core.exceptions import BadRequest, GoogleAPICallError, NotFound
from google.cloud import bigquery

if TYPE_CHECKING:
    from tests.gardener_dagster.local.bigquery.conftest import Lab

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
        ("SELECT * EXCEPT (parser, items, tags, date) REPLACE (n + 1 AS n) FROM t WHERE date = '2024-03-02'", [("c", 10)]),
        ("SELECT parser.Version FROM t WHERE date = '2024-03-02'", [("v1",)]),
        ("SELECT x.p, off FROM t, UNNEST(items) AS x WITH OFFSET AS off WHERE date = '2024-03-01' ORDER BY off", [(1, 0), (2, 1)]),
        ("SELECT p, q FROM t, UNNEST(items) WHERE date = '2024-03-01' ORDER BY p", [(1, "x"), (2, "y")]),
        ("SELECT x.p FROM t, t.items AS x WHERE date = '2024-03-01' ORDER BY 1", [(1,), (2,)]),
        ("SELECT n, x.p FROM t LEFT JOIN UNNEST(items) AS x WHERE date = '2024-03-02'", [(9, None)]),
        ("SELECT id FROM t WHERE date = '2024-03-01' QUALIFY ROW_NUMBER() OVER (PARTITION BY id ORDER BY n DESC) = 1 ORDER BY id", [("a",), ("b",)]),
        ("SELECT id, ARRAY_AGG(STRUCT(n) ORDER BY n DESC LIMIT 1)[OFFSET(0)].n AS n FROM t WHERE date = '2024-03-01' GROUP BY id ORDER BY id", [("a", 2), ("b", None)]),
        ("SELECT id, n FROM t WHERE date = '2024-03-01' ORDER BY n", [("b", None), ("a", 1), ("a", 2)]),
        ("SELECT id, n FROM t WHERE date = '2024-03-01' ORDER BY n DESC", [("a", 2), ("a", 1), ("b", None)]),
        ("WITH t AS (SELECT id FROM t WHERE date = '2024-03-02') SELECT * FROM t", [("c",)]),
        ("WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 3) SELECT * FROM r ORDER BY n", [(1,), (2,), (3,)]),
        ("WITH x AS (SELECT id FROM t WHERE date = '2024-03-02') SELECT * FROM x UNION ALL SELECT 'z'", [("c",), ("z",)]),
        ("SELECT l.id, r.n FROM t AS l JOIN t AS r USING (id) WHERE l.date = '2024-03-02' AND r.date = '2024-03-02'", [("c", 9)]),
        ("SELECT COUNT(*) FROM t WHERE date >= '2024-03-01'", [(4,)]),
        ("SELECT id FROM t WHERE date = '2024-03-01' AND id NOT IN (SELECT id FROM t WHERE date = '2024-03-01' AND n IS NOT NULL)", [("b",)]),
        ("SELECT t.* EXCEPT (items, tags, parser, date) FROM t AS t WHERE t.date = '2024-03-02'", [("c", 9)]),
        ("SELECT SUM(n) OVER () AS total FROM t WHERE date = '2024-03-02'", [(9,)]),
        ("SELECT id FROM `test-project`.{d}.t WHERE date = '2024-03-02'", [("c",)]),
        ("SELECT id FROM `test-project.{d}.t` WHERE date = '2024-03-02'", [("c",)]),
        ("SELECT id FROM `test-project.{d}`.t WHERE date = '2024-03-02'", [("c",)]),
        ("SELECT t.id FROM test-project.{d}.t WHERE t.date = '2024-03-02'", [("c",)]),
        ("SELECT ARRAY_LENGTH(items) + ARRAY_LENGTH(tags) FROM t WHERE date = '2024-03-02'", [(0,)]),
    ],
)  # fmt: skip
def test_queries(filled: "Lab", sql: str, expected: list[Any]) -> None:
    rows = filled.job(sql.replace("{d}", filled.dataset)).result()
    assert [tuple(row) for row in rows] == expected


def test_columns_are_named_as_bigquery_names_them(filled: "Lab") -> None:
    rows = filled.job(
        "SELECT ID, parser.version, 1, n + 1, COUNT(*) AS c, t.N FROM t WHERE date = '2024-03-02' GROUP BY ALL"
    ).result()
    assert [field.name for field in rows.schema] == ["ID", "version", "f0_", "f1_", "c", "N"]


def test_duplicate_column_names_are_refused(filled: "Lab") -> None:
    with pytest.raises(BadRequest, match=r"Duplicate column names in the result.*: n"):
        filled.query("SELECT n, id, n FROM t WHERE date = '2024-03-02'")


@pytest.mark.parametrize(
    ("sql", "error", "said"),
    [
        ("SELECT nothing FROM t WHERE date = '2024-03-01'", BadRequest, "Unrecognized name: nothing"),
        ("SELECT FROM WHERE", BadRequest, "Syntax error: "),
        ("SELECT 1; SELECT 2", GoogleAPICallError, "A script of several statements"),
        ("SELECT NO_SUCH(1)", BadRequest, "Function not found: no_such"),
        ("SELECT * FROM nowhere.t", NotFound, "Not found: Dataset test-project:nowhere"),
        ("SELECT * FROM missing", NotFound, r"Not found: Table test-project:\w+\.missing"),
        ("SELECT * FROM `t$20240301`", BadRequest, "no partition decorators"),
        ("SELECT * FROM `t_*`", GoogleAPICallError, "wildcard table"),
        ("SELECT FARM_FINGERPRINT('x')", GoogleAPICallError, "does not do this"),
        ("SELECT ERROR('boom')", BadRequest, "boom"),
        ("SELECT n / (n - n) FROM t WHERE date = '2024-03-02'", BadRequest, "division by zero"),
        ("SELECT 1 / 0", BadRequest, "division by zero"),
        ("SELECT CAST(id AS INT64) FROM t WHERE date = '2024-03-01'", BadRequest, "Could not convert"),
        ("SELECT content FROM read_text('/etc/hostname')", NotFound, "read_text"),
        ("CALL x()", GoogleAPICallError, "does not do this"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_query_is_said(
    filled: "Lab", sql: str, error: type[Exception], said: str
) -> None:
    job = filled.job(sql)
    with pytest.raises(error, match=said):
        job.result()
    assert job.error_result["reason"] in ("invalidQuery", "notFound", "notImplemented", "invalid")


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


def test_a_missing_destination_is_made_partitioned(filled: "Lab") -> None:
    filled.query(
        "SELECT * FROM t WHERE date = '2024-03-01'",
        destination=filled.ref("made$20240301"),
        time_partitioning=bigquery.TimePartitioning(field="date"),
        write_disposition="WRITE_TRUNCATE",
    )
    made = filled.client.get_table(f"{filled.dataset}.made")
    assert made.time_partitioning is not None
    assert (made.time_partitioning.field, made.num_rows) == ("date", 3)
    with pytest.raises(NotFound, match="Not found: Table"):
        filled.query(
            "SELECT 1 AS a", destination=filled.ref("no"), create_disposition="CREATE_NEVER"
        )


def test_the_default_disposition_of_a_destination_is_empty(filled: "Lab") -> None:
    filled.query("SELECT 1 AS a", destination=filled.ref("once"))
    with pytest.raises(GoogleAPICallError, match="Already Exists: Table"):
        filled.query("SELECT 1 AS a", destination=filled.ref("once"))


def test_json_of_a_row_has_all_its_columns(filled: "Lab") -> None:
    text = filled.value("SELECT TO_JSON_STRING(t) FROM t AS t WHERE date = '2024-03-02'")
    assert json.loads(text) == {
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
    names = filled.query(f"SELECT table_name FROM {filled.dataset}.INFORMATION_SCHEMA.TABLES")  # noqa: S608
    assert names == [{"table_name": "t"}]
    columns = filled.query(
        f"SELECT column_name, data_type, is_partitioning_column FROM {filled.dataset}.INFORMATION_SCHEMA.COLUMNS ORDER BY ordinal_position"  # noqa: S608
    )
    assert [tuple(one.values()) for one in columns] == [
        ("id", "STRING", "NO"),
        ("date", "DATE", "YES"),
        ("n", "INT64", "NO"),
        ("parser", "STRUCT<Version STRING, Time TIMESTAMP>", "NO"),
        ("items", "ARRAY<STRUCT<p INT64, q STRING>>", "NO"),
        ("tags", "ARRAY<STRING>", "NO"),
    ]


def test_results_come_page_by_page(lab: "Lab") -> None:
    job = lab.job("SELECT x FROM UNNEST(GENERATE_ARRAY(1, 2500)) AS x ORDER BY x DESC")
    rows = job.result(page_size=1000)
    assert [len(list(page)) for page in rows.pages] == [1000, 1000, 500]
    assert rows.total_rows == 2500
    again = lab.client.get_job(job.job_id)
    assert isinstance(again, bigquery.QueryJob)
    assert [row.x for row in again.result(start_index=2498)] == [2, 1]
    again = lab.client.get_job(job.job_id)
    assert isinstance(again, bigquery.QueryJob)
    assert [row.x for row in again.result(max_results=2)] == [2500, 2499]


def test_rows_are_listed_page_by_page_and_by_column(filled: "Lab") -> None:
    table = filled.client.get_table(f"{filled.dataset}.t")
    rows = filled.client.list_rows(table, page_size=3)
    assert [len(list(page)) for page in rows.pages] == [3, 1]
    chosen = [field for field in table.schema if field.name == "n"]
    rows = filled.client.list_rows(table, selected_fields=chosen, start_index=1)
    assert sorted(str(row[0]) for row in rows) == ["2", "9", "None"]
    part = filled.client.list_rows(
        f"{filled.client.project}.{filled.dataset}.t$20240302", selected_fields=table.schema
    )
    assert [row["id"] for row in part] == ["c"]


def test_a_page_has_not_more_than_ten_megabytes(lab: "Lab") -> None:
    rows = lab.job("SELECT REPEAT('x', 1000000) AS s FROM UNNEST(GENERATE_ARRAY(1, 25))").result()
    assert [len(list(page)) for page in rows.pages] == [11, 11, 3]


def test_query_and_wait_and_its_repeat(lab: "Lab") -> None:
    assert [row.a for row in lab.client.query_and_wait("SELECT 5 AS a")] == [5]
    body = {"query": "SELECT 1 AS a", "useLegacySql": False, "requestId": "the-same"}
    path = f"/projects/{lab.client.project}/queries"
    answers = [
        lab.client._connection.api_request(method="POST", path=path, data=body) for _ in range(2)
    ]
    assert answers[0]["jobReference"] == answers[1]["jobReference"]


def test_the_current_time_is_the_servers(clocked: "Lab") -> None:
    [row] = clocked.query("SELECT CURRENT_TIMESTAMP() AS t, CURRENT_DATE() AS d")
    assert row == {"t": dt.datetime(2024, 3, 2, 12, tzinfo=UTC), "d": dt.date(2024, 3, 2)}
