"""What the local BigQuery lacks: each request is refused with a reason that names it."""

# ruff: noqa: E501 - queries read better on one line

from typing import TYPE_CHECKING, Any

import pytest
import requests
from google.api_core.exceptions import GoogleAPICallError, MethodNotImplemented
from google.cloud import bigquery

if TYPE_CHECKING:
    from tests.gardener_dagster.local.bigquery.conftest import Lab


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("DELETE FROM t WHERE date = '2024-03-01'", "the statement DELETE"),
        ("CREATE TABLE x AS SELECT 1 AS a", "the statement CREATE"),
        ("CALL x()", "the statement CALL"),
        ("SELECT 1; SELECT 2", "a script of several statements"),
        ("SELECT * FROM `t_*`", r"the wildcard table t_\*"),
        ("SELECT table_name FROM INFORMATION_SCHEMA.TABLES", r"the view INFORMATION_SCHEMA\.TABLES"),
        ("SELECT content FROM read_text('/etc/hostname')", "the function in read_text"),
        ("SELECT FORMAT_DATE('%Y', DATE '2024-03-01')", "the function in FORMAT_DATE"),
        ("SELECT SAFE.PARSE_DATE('%Y', 'x')", "the function in SAFE.PARSE_DATE"),
        ("SELECT COUNTIF(DISTINCT TRUE)", "COUNTIF"),
        ("SELECT TO_JSON(1)", "TO_JSON"),
        ("SELECT NUMERIC '1.5'", "the type NUMERIC"),
        ("SELECT MD5('a') AS hash", "the type of the result's column hash"),
        ("SELECT off FROM UNNEST([1]) AS x WITH OFFSET AS off", "UNNEST WITH OFFSET"),
        ("SELECT p FROM t, UNNEST(items) WHERE date = '2024-03-01'", "UNNEST in FROM without an alias"),
        ("WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT n FROM r", "WITH RECURSIVE"),
        ("SELECT id FROM t FOR SYSTEM_TIME AS OF TIMESTAMP '2024-03-01' WHERE date = '2024-03-01'", "FOR SYSTEM_TIME AS OF"),
        ("SELECT id FROM t TABLESAMPLE SYSTEM (10 PERCENT) WHERE date = '2024-03-01'", "TABLESAMPLE SYSTEM"),
        ("SELECT * FROM t PIVOT(SUM(n) FOR id IN ('a', 'b'))", "PIVOT"),
        ("SELECT ?", "positional query parameters"),
        ("SELECT @@time_zone", "the system variable @@time_zone"),
        ("SELECT CURRENT_DATE('Europe/Berlin')", "the current time in a time zone"),
    ],
)  # fmt: skip
def test_queries(lab: "Lab", sql: str, named: str) -> None:
    lab.table()
    job = lab.job(sql)
    with pytest.raises(
        MethodNotImplemented, match=f"Not implemented by the local BigQuery: {named}"
    ):
        job.result()
    assert job.error_result["reason"] == "notImplemented"


def _job(lab: "Lab", configuration: dict[str, Any]) -> Any:
    return lab.client._connection.api_request(
        method="POST",
        path=f"/projects/{lab.client.project}/jobs",
        data={"configuration": configuration},
    )


TRUNCATE = {"writeDisposition": "WRITE_TRUNCATE"}
LOAD = TRUNCATE | {"sourceFormat": "NEWLINE_DELIMITED_JSON", "sourceUris": ["gs://b/x"]}
TO: Any = {"datasetId": "{d}", "tableId": "t$20240301"}
WHOLE: Any = {"datasetId": "{d}", "tableId": "t"}


@pytest.mark.parametrize(
    ("configuration", "named"),
    [
        ({"extract": {}}, "extract jobs"),
        ({"query": {"query": "SELECT 1"}, "dryRun": True}, "dryRun of a job"),
        ({"query": {"query": "SELECT 1", "useLegacySql": True}}, "legacy SQL"),
        ({"load": LOAD | {"destinationTable": TO, "sourceFormat": "CSV"}}, "a load job of CSV"),
        ({"load": LOAD | {"destinationTable": TO, "maxBadRecords": 1}}, "maxBadRecords of a load job"),
        ({"load": LOAD | {"destinationTable": TO, "writeDisposition": "WRITE_APPEND"}}, "writeDisposition WRITE_APPEND"),
        ({"load": LOAD | {"destinationTable": TO, "writeDisposition": ""}}, "the default writeDisposition"),
        ({"query": TRUNCATE | {"query": "SELECT 1", "destinationTable": TO, "schemaUpdateOptions": ["ALLOW_FIELD_RELAXATION"]}}, "schemaUpdateOptions"),
        ({"copy": TRUNCATE | {"sourceTables": [TO, TO], "destinationTable": TO}}, "several sources"),
        ({"copy": TRUNCATE | {"sourceTable": TO, "destinationTable": TO, "operationType": "SNAPSHOT"}}, "operationType SNAPSHOT"),
    ],
)  # fmt: skip
def test_jobs(lab: "Lab", configuration: dict[str, Any], named: str) -> None:
    with pytest.raises(MethodNotImplemented, match=named):
        _job(lab, configuration)


@pytest.mark.parametrize(
    ("table", "named"),
    [("t", "replaces the whole partitioned table"), ("new", "creates its table")],
)
def test_destinations(lab: "Lab", table: str, named: str) -> None:
    lab.table()
    with pytest.raises(MethodNotImplemented, match=named):
        lab.fill(table, [{"id": "a"}])


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ([{"name": "a", "type": "NUMERIC"}], "the type NUMERIC of the field a"),
        ([{"name": "a", "type": "STRNG"}], "the type STRNG of the field a"),
        ([{"name": "a", "type": "STRING", "mode": "REQUIRED"}], "the mode REQUIRED of the field a"),
    ],
)
def test_schemas(lab: "Lab", fields: Any, named: str) -> None:
    with pytest.raises(MethodNotImplemented, match=named):
        lab.table("x", fields, day="")


@pytest.mark.parametrize(
    ("partitioning", "named"),
    [
        ({}, "partitioning by ingestion time"),
        ({"field": "date", "type_": "MONTH"}, "partitioning by MONTH of the DATE column date"),
        ({"field": "ts"}, "partitioning by DAY of the TIMESTAMP column ts"),
        ({"field": "date", "expiration_ms": 1000}, "expirationMs of timePartitioning"),
    ],
)
def test_partitionings(lab: "Lab", partitioning: Any, named: str) -> None:
    fields = [{"name": "date", "type": "DATE"}, {"name": "ts", "type": "TIMESTAMP"}]
    spec = bigquery.TimePartitioning(**partitioning)
    with pytest.raises(MethodNotImplemented, match=named):
        lab.table("x", fields, day="", time_partitioning=spec)


def test_changes_of_a_table_other_than_its_schema(lab: "Lab") -> None:
    lab.table()
    table = lab.client.get_table(f"{lab.dataset}.t")
    table.description = "new"
    with pytest.raises(MethodNotImplemented, match="a change of description of a table"):
        lab.client.update_table(table, ["description"])


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/bigquery/v2/projects/p/queries"),
        ("PATCH", "/bigquery/v2/projects/p/datasets/d"),
        ("GET", "/bigquery/v2/projects/p/datasets/d/tables/t/data"),
        ("POST", "/upload/bigquery/v2/projects/p/jobs"),
    ],
)
def test_methods_of_the_api(server: str, method: str, path: str) -> None:
    answer = requests.request(method, f"{server}{path}", timeout=5)
    [error] = answer.json()["error"]["errors"]
    assert answer.status_code == 501
    assert error["reason"] == "notImplemented"
    assert f"{method} {path}" in error["message"]


def test_a_query_parameter_of_another_type(lab: "Lab") -> None:
    with pytest.raises(GoogleAPICallError, match="a query parameter of type ARRAY"):
        lab.query("SELECT @p", bigquery.ArrayQueryParameter("p", "INT64", [1]))
