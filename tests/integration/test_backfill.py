"""A whole-chain backfill through Dagster's own webserver and daemon, on real archives."""

import datetime as dt

import pytest
from stack_client import StackClient

from gardener_api.jobs.job import JobState
from gardener_dagster.planning.due_tables import job_key

GOOD = [dt.date(2024, 3, day) for day in (1, 2)]
BAD = dt.date(2024, 5, 2)
BESIDE_BAD = [dt.date(2024, 5, 1)]


def test_it_ends_in_success_from_an_empty_warehouse(backfills: dict[str, str]) -> None:
    assert backfills["good"] == "COMPLETED_SUCCESS"


@pytest.mark.usefixtures("backfills")
@pytest.mark.parametrize("date", [*GOOD, *BESIDE_BAD], ids=str)
def test_the_tables_hold_what_the_archives_held(stack: StackClient, date: dt.date) -> None:
    want, annotations = stack.expected["ndt7", date], stack.expected["annotation2", date]
    assert stack.value("raw_ndt.ndt7", date) == want.raw_rows
    assert stack.value("raw_ndt.ndt7", date, "COUNT(DISTINCT id)") == want.raw_rows
    assert stack.value("raw_ndt.annotation2", date) == annotations.raw_rows
    assert stack.value("ndt.ndt7", date) == want.joined_rows
    assert stack.value("tmp_ndt.ndt7", date) == 0


@pytest.mark.usefixtures("backfills")
@pytest.mark.parametrize("date", GOOD, ids=str)
def test_each_test_has_its_annotation(stack: StackClient, date: dt.date) -> None:
    annotated = stack.value("ndt.ndt7", date, "COUNTIF(server.Site IS NOT NULL)")
    assert annotated == stack.expected["ndt7", date].annotated_rows


@pytest.mark.usefixtures("backfills")
@pytest.mark.parametrize(
    "path",
    [("parsed", "ndt", "ndt7"), ("tmp_ndt", "ndt7"), ("raw_ndt", "ndt7"), ("ndt", "ndt7"),
     ("raw_ndt", "annotation2")],
    ids="/".join,
)  # fmt: skip
def test_dagster_shows_each_partition(stack: StackClient, path: tuple[str, ...]) -> None:
    shown = stack.materialized(*path)
    assert {shown[day.isoformat()] for day in [*GOOD, *BESIDE_BAD]} == {"MATERIALIZED"}


def test_a_date_whose_parse_fails_fails_alone(
    backfills: dict[str, str], stack: StackClient
) -> None:
    assert backfills["bad"] == "COMPLETED_FAILED"
    job = stack.store.latest(job_key(stack.config.source("ndt/ndt7"), BAD))
    assert job is not None
    assert (job.state, job.attempt) == (JobState.FAILED, 3)
    assert "could be read" in job.error
    assert BAD.isoformat() not in stack.materialized("raw_ndt", "ndt7")
    assert stack.materialized("raw_ndt", "annotation2")[BAD.isoformat()] == "MATERIALIZED"
    assert stack.value("raw_ndt.ndt7", BAD) == 0


@pytest.mark.usefixtures("backfills")
def test_each_date_was_parsed_and_loaded_once(stack: StackClient) -> None:
    for date in [*GOOD, *BESIDE_BAD]:
        for source in stack.config.sources:
            job = stack.store.latest(job_key(source, date))
            assert job is not None
            assert (job.state, job.id) == (JobState.COMPLETE, str(job.key))
            loads = [o for o in stack.store.tables.operations(job.key) if o.operation == "load"]
            assert [load.objects for load in loads] == [job.archives]
