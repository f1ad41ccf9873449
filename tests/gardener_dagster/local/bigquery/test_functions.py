"""GoogleSQL's functions and parameters, through the client."""

# ruff: noqa: E501 - queries read better on one line

import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest
from google.api_core.exceptions import BadRequest
from google.cloud import bigquery

if TYPE_CHECKING:
    from tests.gardener_dagster.local.bigquery.conftest import Lab

UTC = dt.UTC
Scalar = bigquery.ScalarQueryParameter


def value(client: bigquery.Client, sql: str) -> Any:
    [row] = client.query(sql).result()
    assert len(row) == 1
    return row[0]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("1.5", 1.5),
        ("7 / 2", 3.5),
        ("NULL", None),
        ("'it\\'s'", "it's"),
        ("r'\\d'", "\\d"),
        ("DATE '2024-03-01'", dt.date(2024, 3, 1)),
        ("TIMESTAMP '2024-03-01 10:00:00+02'", dt.datetime(2024, 3, 1, 8, tzinfo=UTC)),
        ("CAST('5' AS INT64)", 5),
        ("SAFE_CAST('x' AS INT64)", None),
        ("CAST(DATE '2024-03-01' AS STRING)", "2024-03-01"),
        ("DATE_SUB(DATE '2024-03-01', INTERVAL 1 DAY)", dt.date(2024, 2, 29)),
        ("DATE_ADD(DATE '2024-01-31', INTERVAL 1 MONTH)", dt.date(2024, 2, 29)),
        ("DATE_DIFF(DATE '2024-03-01', DATE '2024-02-01', DAY)", 29),
        ("DATE(TIMESTAMP '2024-03-01 23:00:00')", dt.date(2024, 3, 1)),
        ("IF(1 < 2 AND TRUE OR FALSE, 'a', 'b')", "a"),
        ("CASE WHEN FALSE THEN 1 ELSE 2 END", 2),
        ("IFNULL(NULL, 'x')", "x"),
        ("NULLIF(1, 1)", None),
        ("SAFE_DIVIDE(1, 0)", None),
        ("ROUND(2.5)", 3.0),
        ("CONCAT('a', 'b') || 'c'", "abc"),
        ("LENGTH('é')", 1),
        ("UPPER(LOWER('A'))", "A"),
        ("SUBSTR('abc', 2, 1)", "b"),
        ("STARTS_WITH('abc', 'ab')", True),
        # RE2: found anywhere, and no backtracking.
        ("REGEXP_CONTAINS('xabc', r'a.c$')", True),
        ("REGEXP_CONTAINS('a\\nb', r'(?s)a.b')", True),
        ("REGEXP_EXTRACT('gs://b/x', r'gs://([^/]+)')", "b"),
        ("[1, 2][OFFSET(0)]", 1),
        ("[1, 2][SAFE_OFFSET(9)]", None),
        ("ARRAY_LENGTH([1, 2])", 2),
        ("3 IN UNNEST([1, 3])", True),
        ("EXISTS(SELECT 1)", True),
        ("STRUCT(1 AS a, STRUCT('x' AS c) AS b)", {"a": 1, "b": {"c": "x"}}),
        ("[STRUCT(1 AS a, [2] AS b)]", [{"a": 1, "b": [2]}]),
        ("ARRAY(SELECT x * 2 FROM UNNEST([1, 2]) AS x ORDER BY 1 DESC)", [4, 2]),
        ("(SELECT SUM(x) FROM UNNEST(GENERATE_ARRAY(1, 3)) AS x)", 6),
        ("(SELECT SUM(x) FROM UNNEST([9223372036854775807]) AS x)", 9223372036854775807),
        ("(SELECT AVG(x) FROM UNNEST([1, 2]) AS x)", 1.5),
        ("(SELECT MAX(x) - MIN(x) FROM UNNEST([1, 3]) AS x)", 2),
        ("(SELECT ANY_VALUE(x) FROM UNNEST([7]) AS x)", 7),
        ("(SELECT COUNTIF(x > 1) FROM UNNEST([1, 2, 3]) AS x)", 2),
        ("(SELECT COUNT(DISTINCT x) FROM UNNEST([1, 1, 2]) AS x)", 2),
        ("(SELECT APPROX_QUANTILES(x, 2)[OFFSET(1)] FROM UNNEST([1, 2, 3]) AS x)", 2),
    ],
)  # fmt: skip
def test_functions(client: bigquery.Client, sql: str, expected: Any) -> None:
    found = value(client, f"SELECT {sql}")
    assert found == expected
    assert type(found) is type(expected)


def test_d41_countif_over_no_rows_is_0(client: bigquery.Client) -> None:
    # https://cloud.google.com/bigquery/docs/reference/standard-sql/aggregate_functions#countif:
    # "Returns 0 if there are zero input rows, or if expression evaluates to FALSE or NULL".
    found = value(client, "SELECT COUNTIF(x > 1) FROM UNNEST([1, 2]) AS x WHERE x > 5")
    assert (found, type(found)) == (0, int)


ENCODINGS = [
    # The table of https://cloud.google.com/bigquery/docs/reference/standard-sql/json_functions#json_encodings
    ("NULL", "null"),
    ("TRUE", "true"),
    ("9007199254740992", "9007199254740992"),
    ("-9007199254740992", "-9007199254740992"),
    ("9007199254740993", '"9007199254740993"'),
    ("-9007199254740993", '"-9007199254740993"'),
    ("1.0", "1"),
    ("0.1", "0.1"),
    ("1.5e300", "1.5e+300"),
    ("CAST('inf' AS FLOAT64)", '"Infinity"'),
    ("CAST('-inf' AS FLOAT64)", '"-Infinity"'),
    ("CAST('nan' AS FLOAT64)", '"NaN"'),
    ("'abc'", '"abc"'),
    (r"'\"abc\"'", r'"\"abc\""'),
    (r"'a\nb'", r'"a\nb"'),
    ("DATE '2017-03-06'", '"2017-03-06"'),
    ("TIMESTAMP '2017-03-06 12:34:56.789012'", '"2017-03-06T12:34:56.789012Z"'),
    ("TIMESTAMP '2017-03-06 12:34:56.789'", '"2017-03-06T12:34:56.789Z"'),
    ("TIMESTAMP '2017-03-06 12:34:56.7'", '"2017-03-06T12:34:56.700Z"'),
    ("TIMESTAMP '2017-03-06 12:34:56'", '"2017-03-06T12:34:56Z"'),
    ("['foo', 'bar']", '["foo","bar"]'),
    ("STRUCT(12 AS purchases, TRUE AS inProgress)", '{"purchases":12,"inProgress":true}'),
    # Whole records and arrays of numbers, on both sides of the limit.
    ("[9007199254740991, 9007199254740992, 9007199254740993, -9007199254740993, 9010000000000000]",
     '[9007199254740991,9007199254740992,"9007199254740993","-9007199254740993","9010000000000000"]'),
    ("STRUCT(9999999999999999 AS a9007199254740993, 10 AS b, [9223372036854775807, 1] AS c)",
     '{"a9007199254740993":"9999999999999999","b":10,"c":["9223372036854775807",1]}'),
    # Of records in records, and of what only looks like a time.
    ("STRUCT([STRUCT(1.0 AS a, 9007199254740993 AS b)] AS c)", '{"c":[{"a":1,"b":"9007199254740993"}]}'),
    ("STRUCT('2024-03-01 10:00:00+00' AS t)", '{"t":"2024-03-01 10:00:00+00"}'),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "expected"), ENCODINGS)
def test_d41_to_json_string_is_as_bigquery_documents_it(
    client: bigquery.Client, sql: str, expected: str
) -> None:
    assert value(client, f"SELECT TO_JSON_STRING({sql})") == expected


def test_d41_to_json_string_of_rows_whatever_they_come_from(lab: "Lab") -> None:
    sql = """
    WITH u AS (SELECT x, x / 2 AS half FROM UNNEST([1, 2]) AS x)
    SELECT x, TO_JSON_STRING(t) AS j, MD5(TO_JSON_STRING(t)) IS NULL AS n FROM u AS t
    WHERE x > 0 QUALIFY ROW_NUMBER() OVER (ORDER BY TO_JSON_STRING(t) DESC) = 1
    """
    assert lab.query(sql) == [{"x": 2, "j": '{"x":2,"half":1}', "n": False}]


@pytest.mark.parametrize(
    "value", ["0001-01-01T00:00:00+05:00", "0000-12-31T00:00:00Z", "9999-12-31T23:59:59-01:00"]
)
def test_d38_a_parameter_beyond_bigquerys_range_is_refused(lab: "Lab", value: str) -> None:
    with pytest.raises(BadRequest, match="not a valid value"):
        lab.query("SELECT @p", Scalar("p", "TIMESTAMP", value))


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        (Scalar("p", "STRING", "it's @p"), "it's @p"),
        (Scalar("p", "INT64", -5), -5),
        (Scalar("p", "FLOAT64", 0.5), 0.5),
        (Scalar("p", "BOOL", True), True),
        (Scalar("p", "DATE", dt.date(2024, 3, 1)), dt.date(2024, 3, 1)),
        (Scalar("p", "TIMESTAMP", dt.datetime(2024, 3, 1, tzinfo=UTC)), dt.datetime(2024, 3, 1, tzinfo=UTC)),
        (Scalar("p", "DATE", None), None),
    ],
)  # fmt: skip
def test_parameters(lab: "Lab", parameter: Any, expected: Any) -> None:
    [row] = lab.query("SELECT @P AS v", parameter)
    assert row["v"] == expected
    assert type(row["v"]) is type(expected)
