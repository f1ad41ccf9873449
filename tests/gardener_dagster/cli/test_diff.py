"""``gardener diff`` on tables of the local BigQuery, in this process."""

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from bigquery_server import running_server
from click.testing import CliRunner, Result
from google.cloud import bigquery

from gardener_dagster.cli.main import main
from gardener_dagster.local.clients import PROJECT, bigquery_client

DATE = dt.date(2024, 3, 1)
CONFIG = """
start_date: 2024-01-01
sources: [{bucket: archive-mlab, experiment: ndt, datatype: ndt7}]
"""
TABLES = {
    "tmp_ndt": {"b": 1.0, "c": 2.0, "d": 1.0},
    "raw_ndt": {"a": 1.0, "b": 1.0, "c": 1.0},
    "other_ndt": {"a": 1.0, "b": 1.0, "c": 1.0},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_server(
        tmp_path_factory.mktemp("bigquery"), storage_url="http://127.0.0.1:9"
    ) as url:
        with bigquery_client(url) as client:
            for dataset, rows in TABLES.items():
                make(client, f"{dataset}.ndt7", rows)
        yield url


def make(client: bigquery.Client, name: str, rows: dict[str, float]) -> None:
    """A table with an id and a number in each row, of one date."""
    columns = [("id", "STRING"), ("date", "DATE"), ("a", "FLOAT")]
    client.create_dataset(name.partition(".")[0])
    table = bigquery.Table(f"{PROJECT}.{name}", [bigquery.SchemaField(*c) for c in columns])
    table.time_partitioning = bigquery.TimePartitioning(field="date")
    table.require_partition_filter = True
    client.create_table(table)
    selects = [f"SELECT '{id}' AS id, @date AS date, {number} AS a" for id, number in rows.items()]
    client.query(
        "\nUNION ALL\n".join(selects),
        job_config=bigquery.QueryJobConfig(
            destination=f"{PROJECT}.{name}${DATE:%Y%m%d}",
            write_disposition="WRITE_TRUNCATE",
            query_parameters=[bigquery.ScalarQueryParameter("date", "DATE", DATE)],
        ),
    ).result()


@pytest.fixture
def environment(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gardener.yml").write_text(CONFIG, encoding="utf-8")
    monkeypatch.setenv("GARDENER_CONFIG", str(tmp_path / "gardener.yml"))
    monkeypatch.setenv("GARDENER_PROJECT", PROJECT)
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", server)


def diff(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["diff", *arguments])


@pytest.mark.usefixtures("environment")
def test_raw_is_compared_with_what_would_replace_it() -> None:
    result = diff("--dates", "2024-03-01:2024-03-02")
    assert result.exit_code == 0, result.output
    head, *lines, cost = result.output.splitlines()
    assert head == "ndt/ndt7: raw_ndt.ndt7 (before), tmp_ndt.ndt7 (after)"
    assert [line.split() for line in lines[1:]] == [
        ["2024-03-01", "3", "3", "2", "1", "1", "0", "0", "differs"],
        ["2024-03-02", "0", "0", "0", "0", "0", "0", "0", "same"],
        ["total", "3", "3", "2", "1", "1", "0", "0"],
    ]
    assert lines[0].split("  ")[1] == "date"
    assert cost.startswith("  read ")


@pytest.mark.usefixtures("environment")
def test_columns_are_compared_on_request() -> None:
    result = diff("--dates", "2024-03-01", "--columns", "*")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[3:-1] == [
        "  rows whose id stands once in each, by columns:",
        "  date        compared  differ  in which columns",
        "  2024-03-01         2       1  a: 1",
        "  for example 2024-03-01 c",
        "    a: 1 → 2",
    ]


@pytest.mark.usefixtures("environment")
def test_another_dataset_is_compared_with_raw_as_json() -> None:
    result = diff("--dates", "2024-03-01", "--against", "other_ndt", "--columns", "a", "--json")
    [found] = json.loads(result.output)
    assert (found["source"], found["before"], found["after"]) == (
        "ndt/ndt7", "other_ndt.ndt7", "raw_ndt.ndt7",
    )  # fmt: skip
    assert found["dates"] == [
        {"date": "2024-03-01", "rows_before": 3, "rows_after": 3, "keyless_before": 0,
         "keyless_after": 0, "in_both": 3, "added": 0, "removed": 0, "same": True},
    ]  # fmt: skip
    assert found["columns"] == [
        {"date": "2024-03-01", "compared": 3, "differing": 0, "columns": {}}
    ]
    assert found["examples"] == []
    assert found["bytes_processed"] > 0


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--before", "1h"], 1, "this BigQuery has no time travel"),
        (["--before", "soon"], 2, "'soon': expected a duration like 5h, 1m or 1h30m"),
        (["--before", "1h", "--against", "x"], 2, "expected only one of them"),
        (["--against", "nowhere"], 1, "diff nowhere.ndt7: there is no such table"),
        (["--against", "a-b"], 1, "diff a-b.ndt7: there is no such table"),
        (["--columns", "b"], 1, "there is no column 'b'"),
        (["--columns", "a,,"], 1, "there is no column ''"),
        (["--source", "ndt/x"], 1, "no source 'ndt/x'"),
    ],
    ids=str,
)
def test_what_cannot_be_compared_is_told(arguments: list[str], code: int, said: str) -> None:
    result = diff("--dates", "2024-03-01", *arguments)
    assert (result.exit_code, said in result.output) == (code, True), result.output
