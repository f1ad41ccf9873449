"""GoogleSQL's expressions and parameters, through the client."""

# ruff: noqa: E501 - queries read better on one line

import datetime as dt
import hashlib
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from google.api_core.exceptions import BadRequest
from google.cloud import bigquery

if TYPE_CHECKING:
    from tests.gardener_dagster.local.bigquery.conftest import Lab

UTC = dt.UTC
Scalar = bigquery.ScalarQueryParameter


@pytest.fixture(scope="module")
def blank(client: bigquery.Client) -> bigquery.Client:
    """For queries that read no table."""
    return client


def value(client: bigquery.Client, sql: str) -> Any:
    [row] = client.query_and_wait(sql)
    assert len(row) == 1
    return row[0]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("1.5", 1.5),
        ("7 / 2", 3.5),
        ("DIV(7, 2)", 3),
        ("NULL", None),
        ("NUMERIC '1.25'", Decimal("1.25")),
        ("b'abc'", b"abc"),
        ("'it\\'s'", "it's"),
        ("r'\\d'", "\\d"),
        ("DATE '2024-03-01'", dt.date(2024, 3, 1)),
        ("TIME '10:00:00.5'", dt.time(10, 0, 0, 500000)),
        ("DATETIME '2024-03-01 10:00:00'", dt.datetime(2024, 3, 1, 10)),  # noqa: DTZ001
        ("TIMESTAMP '2024-03-01 10:00:00+02'", dt.datetime(2024, 3, 1, 8, tzinfo=UTC)),
        ("CAST('5' AS INT64)", 5),
        ("SAFE_CAST('x' AS INT64)", None),
        ("CAST(DATE '2024-03-01' AS STRING)", "2024-03-01"),
        ("DATE_SUB(DATE '2024-03-01', INTERVAL 1 DAY)", dt.date(2024, 2, 29)),
        ("DATE_ADD(DATE '2024-01-31', INTERVAL 1 MONTH)", dt.date(2024, 2, 29)),
        ("DATE_DIFF(DATE '2024-03-01', DATE '2024-02-01', DAY)", 29),
        ("DATE_TRUNC(DATE '2024-03-15', MONTH)", dt.date(2024, 3, 1)),
        ("TIMESTAMP_DIFF(TIMESTAMP '2024-03-01 11:01:00', TIMESTAMP '2024-03-01 10:59:00', HOUR)", 0),
        ("TIMESTAMP_DIFF(TIMESTAMP '2024-03-02', TIMESTAMP '2024-03-01', SECOND)", 86_400),
        ("TIMESTAMP_SUB(TIMESTAMP '2024-03-01', INTERVAL 90 MINUTE)", dt.datetime(2024, 2, 29, 22, 30, tzinfo=UTC)),
        ("TIMESTAMP_TRUNC(TIMESTAMP '2024-03-01 10:11:12', DAY)", dt.datetime(2024, 3, 1, tzinfo=UTC)),
        ("TIMESTAMP_MICROS(1)", dt.datetime(1970, 1, 1, microsecond=1, tzinfo=UTC)),
        ("UNIX_MICROS(TIMESTAMP '1970-01-01 00:00:01')", 1_000_000),
        ("DATE(TIMESTAMP '2024-03-01 23:00:00')", dt.date(2024, 3, 1)),
        ("TIMESTAMP(DATE '2024-03-01')", dt.datetime(2024, 3, 1, tzinfo=UTC)),
        ("EXTRACT(DATE FROM TIMESTAMP '2024-03-01 10:00:00')", dt.date(2024, 3, 1)),
        ("EXTRACT(DAYOFWEEK FROM DATE '2024-03-03')", 1),
        ("EXTRACT(ISOWEEK FROM DATE '2024-03-03')", 9),
        ("EXTRACT(MILLISECOND FROM TIMESTAMP '2024-03-01 10:00:01.250')", 250),
        ("FORMAT_DATE('%Y%m%d', DATE '2024-03-01')", "20240301"),
        ("PARSE_DATE('%Y%m%d', '20240301')", dt.date(2024, 3, 1)),
        ("PARSE_TIMESTAMP('%Y-%m-%d', '2024-03-01')", dt.datetime(2024, 3, 1, tzinfo=UTC)),
        ("SAFE_DIVIDE(1, 0)", None),
        ("IF(TRUE, 'a', 'b')", "a"),
        ("IFNULL(NULL, 'x')", "x"),
        ("REGEXP_CONTAINS('abc', r'^a.c$')", True),
        ("REGEXP_EXTRACT('gs://b/x', r'gs://([^/]+)')", "b"),
        ("SPLIT('a,b', ',')", ["a", "b"]),
        ("BYTE_LENGTH('é')", 2),
        ("FORMAT('%d-%s', 5, 'x')", "5-x"),
        ("TO_HEX(MD5('a'))", hashlib.md5(b"a").hexdigest()),  # noqa: S324
        ("MD5('a')", hashlib.md5(b"a").digest()),  # noqa: S324
        ("TO_HEX(SHA256('a'))", hashlib.sha256(b"a").hexdigest()),
        ("[1, 2][OFFSET(0)]", 1),
        ("[1, 2][SAFE_OFFSET(9)]", None),
        ("[1, 2][ORDINAL(1)]", 1),
        ("ARRAY_LENGTH([1, 2])", 2),
        ("ARRAY_TO_STRING(['a', 'b'], '-')", "a-b"),
        ("3 IN UNNEST([1, 3])", True),
        ("STRUCT(1 AS a, STRUCT('x' AS c) AS b)", {"a": 1, "b": {"c": "x"}}),
        ("STRUCT(1 AS a, STRUCT('x' AS c) AS b).b.c", "x"),
        ("[STRUCT(1 AS a, [2] AS b)]", [{"a": 1, "b": [2]}]),
        ("ARRAY(SELECT x * 2 FROM UNNEST([1, 2]) AS x ORDER BY 1 DESC)", [4, 2]),
        ("ARRAY(SELECT AS STRUCT x AS a FROM UNNEST([1]) AS x)", [{"a": 1}]),
        ("(SELECT SUM(x) FROM UNNEST([1, 2]) AS x)", 3),
        ("(SELECT off FROM UNNEST(['a', 'b']) AS x WITH OFFSET AS off WHERE x = 'b')", 1),
        ("(SELECT STRING_AGG(x, ',' ORDER BY x) FROM UNNEST(['b', 'a']) AS x)", "a,b"),
        ("(SELECT ARRAY_AGG(x ORDER BY x DESC LIMIT 1)[OFFSET(0)] FROM UNNEST([1, 3]) AS x)", 3),
        ("(SELECT ARRAY_AGG(x IGNORE NULLS ORDER BY x) FROM UNNEST([2, NULL, 1]) AS x)", [1, 2]),
        ("(SELECT ANY_VALUE(x) FROM UNNEST([7]) AS x)", 7),
        ("(SELECT COUNTIF(x > 1) FROM UNNEST([1, 2, 3]) AS x)", 2),
        ("(SELECT LOGICAL_AND(x > 0) FROM UNNEST([1, 2]) AS x)", True),
        ("(SELECT COUNT(DISTINCT x) FROM UNNEST([1, 1, 2]) AS x)", 2),
        ("(SELECT APPROX_QUANTILES(x, 2)[OFFSET(1)] FROM UNNEST([1, 2, 3]) AS x)", 2),
        ("(SELECT SUM(x) FROM UNNEST([9223372036854775807]) AS x)", 9223372036854775807),
        ("(SELECT AVG(x) FROM UNNEST([1, 2]) AS x)", 1.5),
        ("TO_JSON_STRING(STRUCT(TIMESTAMP '2024-03-01 10:00:00' AS t, [1] AS a))",
         '{"t":"2024-03-01T10:00:00Z","a":[1]}'),
        ("JSON_VALUE('{\"a\": {\"b\": 1}}', '$.a.b')", "1"),
        ("GENERATE_DATE_ARRAY(DATE '2024-03-01', DATE '2024-03-02')",
         [dt.date(2024, 3, 1), dt.date(2024, 3, 2)]),
        ("SAFE.PARSE_DATE('%Y', 'x')", None),
        ("IEEE_DIVIDE(1, 0)", float("inf")),
    ],
)  # fmt: skip
def test_expressions(blank: bigquery.Client, sql: str, expected: Any) -> None:
    found = value(blank, f"SELECT {sql}")
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        (Scalar("p", "STRING", "it's @p"), "it's @p"),
        (Scalar("p", "INT64", -5), -5),
        (Scalar("p", "FLOAT64", 0.5), 0.5),
        (Scalar("p", "BOOL", True), True),
        (Scalar("p", "DATE", dt.date(2024, 3, 1)), dt.date(2024, 3, 1)),
        (Scalar("p", "TIMESTAMP", dt.datetime(2024, 3, 1, tzinfo=UTC)), dt.datetime(2024, 3, 1, tzinfo=UTC)),
        (Scalar("p", "DATETIME", dt.datetime(2024, 3, 1)), dt.datetime(2024, 3, 1)),  # noqa: DTZ001
        (Scalar("p", "TIME", "01:02:00"), dt.time(1, 2)),
        (Scalar("p", "BYTES", "AGE="), b"\x00a"),
        (Scalar("p", "NUMERIC", Decimal("1.5")), Decimal("1.5")),
        (Scalar("p", "STRING", None), None),
        (Scalar("p", "DATE", None), None),
        (bigquery.ArrayQueryParameter("p", "INT64", [1, 2]), [1, 2]),
        (bigquery.ArrayQueryParameter("p", "STRING", []), []),
        (bigquery.ArrayQueryParameter("p", "DATE", [dt.date(2024, 3, 1)]), [dt.date(2024, 3, 1)]),
        (bigquery.StructQueryParameter("p", Scalar("a", "INT64", 1), Scalar("b", "STRING", "x")),
         {"a": 1, "b": "x"}),
    ],
)  # fmt: skip
def test_parameters(lab: "Lab", parameter: Any, expected: Any) -> None:
    found = lab.value("SELECT @P AS v", parameter)
    assert found == expected
    assert type(found) is type(expected)


def test_positional_parameters(lab: "Lab") -> None:
    assert lab.query(
        "SELECT ? AS a, ? AS b", Scalar(None, "INT64", 1), Scalar(None, "STRING", "x")
    ) == [{"a": 1, "b": "x"}]


def test_a_parameter_that_is_not_given_is_named(lab: "Lab") -> None:
    with pytest.raises(BadRequest, match="Query parameter 'missing' not found"):
        lab.query("SELECT @missing")
