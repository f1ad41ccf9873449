"""What goes away by itself, when the clock says so."""

import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest
from google.api_core.exceptions import NotFound
from google.cloud import bigquery

if TYPE_CHECKING:
    from tests.gardener_dagster.local.bigquery.conftest import Clock, Lab

DAY_MS = 86_400_000


def days(lab: "Lab", name: str) -> list[str]:
    return [one["date"].isoformat() for one in lab.rows(name)]


def rows(lab: "Lab", job_id: str) -> list[Any]:
    """The result of a query, asked for anew."""
    job = lab.client.get_job(job_id)
    assert isinstance(job, bigquery.QueryJob)
    return list(job.result())


def test_a_partition_goes_away_a_time_after_its_own_date(
    clocked: "Lab", clock: "Clock", row: Any
) -> None:
    spec = bigquery.TimePartitioning(field="date", expiration_ms=3 * DAY_MS)
    clocked.table(time_partitioning=spec)
    for day in ("2024-03-01", "2024-03-02"):
        clocked.fill(f"t${day.replace('-', '')}", [row(day, day)])
    clock.now = dt.datetime(2024, 3, 3, 23, 59, tzinfo=dt.UTC)
    assert days(clocked, "t") == ["2024-03-01", "2024-03-02"]
    clock.now = dt.datetime(2024, 3, 4, tzinfo=dt.UTC)
    assert clocked.client.get_table("d.t").num_rows == 1
    assert days(clocked, "t") == ["2024-03-02"]
    with pytest.raises(NotFound):
        clocked.client.delete_table("d.t$20240301")
    # One that is older than that when it is written does not even stay until it is read.
    clocked.fill("t$20240229", [row("x", "2024-02-29")])
    assert days(clocked, "t") == ["2024-03-02"]


def test_an_expiration_can_be_set_and_taken_back_later(
    clocked: "Lab", clock: "Clock", row: Any
) -> None:
    clocked.table()
    clocked.fill("t$20240301", [row("a")])
    table = clocked.client.get_table("d.t")
    table.time_partitioning = bigquery.TimePartitioning(field="date", expiration_ms=30 * DAY_MS)
    table = clocked.client.update_table(table, ["time_partitioning"])
    clock.now = dt.datetime(2024, 3, 30, tzinfo=dt.UTC)
    assert days(clocked, "t") == ["2024-03-01"]
    assert table.time_partitioning is not None
    table.time_partitioning.expiration_ms = None
    clocked.client.update_table(table, ["time_partitioning"])
    clock.now = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
    assert days(clocked, "t") == ["2024-03-01"]
    clocked.query("ALTER TABLE t SET OPTIONS (partition_expiration_days = 1)")
    assert days(clocked, "t") == []


def test_a_table_goes_away_at_its_time(clocked: "Lab", clock: "Clock") -> None:
    clocked.table("gone", expires=clock.now + dt.timedelta(hours=1))
    clocked.table("stays")
    clock.now += dt.timedelta(hours=2)
    assert [one.table_id for one in clocked.client.list_tables("d")] == ["stays"]
    with pytest.raises(NotFound):
        clocked.client.get_table("d.gone")


def test_a_dataset_gives_its_tables_their_lives(clocked: "Lab", clock: "Clock") -> None:
    dataset = bigquery.Dataset(f"{clocked.client.project}.short")
    dataset.default_table_expiration_ms = 2 * 3_600_000
    dataset.default_partition_expiration_ms = DAY_MS
    clocked.client.create_dataset(dataset)
    clocked.dataset = "short"
    clocked.table("whole", day="")
    clocked.table("parts")
    whole, parts = (clocked.client.get_table(f"short.{name}") for name in ("whole", "parts"))
    assert whole.expires == clock.now + dt.timedelta(hours=2)
    assert parts.expires is None
    assert parts.time_partitioning is not None
    assert parts.time_partitioning.expiration_ms == DAY_MS


def test_results_go_away_after_a_day(clocked: "Lab", clock: "Clock") -> None:
    job = clocked.job("SELECT 1 AS a")
    job.result()
    assert [row.a for row in rows(clocked, job.job_id)] == [1]
    clock.now += dt.timedelta(days=1, minutes=1)
    with pytest.raises(NotFound, match="Not found: Table"):
        rows(clocked, job.job_id)
