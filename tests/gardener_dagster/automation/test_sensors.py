import datetime as dt
import json
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterRunStatus
from dagster._core.execution.backfill import BulkActionStatus
from simulated import Parser
from ticked_sensors import ANNOTATION2, DAY, NDT7, NOW, Gardener, dates_of, run_event

from gardener_api.jobs.job import JobState, Priority
from gardener_dagster.assets.keys import BACKFILL_TAG, JOB_TAG, QUEUE_TAG
from gardener_dagster.planning.lost_tables import MOST_LOST


def test_what_was_parsed_gets_its_tables(gardener: Gardener) -> None:
    job = gardener.parse(ANNOTATION2)
    result = gardener.tick("parsed_jobs")
    [request] = result.run_requests or ()
    assert request.partition_key == "2024-03-01"
    assert request.run_key == job.id
    assert request.tags[JOB_TAG] == job.id
    assert request.asset_selection == [
        dg.AssetKey(["tmp_ndt", "annotation2"]),
        dg.AssetKey(["raw_ndt", "annotation2"]),
    ]


def test_what_is_queued_or_being_parsed_gets_none(gardener: Gardener) -> None:
    gardener.ask(NDT7)
    assert gardener.runs("parsed_jobs") == []
    gardener.store.lease(1, now=NOW)
    assert gardener.runs("parsed_jobs") == []


def test_tables_of_the_historical_pass_are_behind_those_of_a_daily_job(gardener: Gardener) -> None:
    gardener.parse(ANNOTATION2, priority=Priority.HISTORICAL)
    gardener.parse(NDT7, priority=Priority.DAILY)
    requests = gardener.tick("parsed_jobs").run_requests or ()
    assert [int(request.tags[QUEUE_TAG]) for request in requests] == [10, -10]


def test_of_a_date_what_others_join_comes_first(gardener: Gardener) -> None:
    later = DAY + dt.timedelta(days=1)
    for name, date in ((NDT7, DAY), (ANNOTATION2, DAY), (ANNOTATION2, later)):
        gardener.parse(name, date, rank=0 if name == NDT7 else 1)
    runs = [(date, assets[-1]) for date, assets in gardener.runs("parsed_jobs")]
    assert runs == [("2024-03-01..2024-03-02", "raw_ndt/annotation2")]
    gardener.make(ANNOTATION2)
    gardener.make(ANNOTATION2, later)
    assert gardener.runs("parsed_jobs") == [
        ("2024-03-01", ["tmp_ndt/ndt7", "raw_ndt/ndt7", "ndt/ndt7"])
    ]


def test_the_join_follows_in_the_same_run_where_it_is_ready(gardener: Gardener) -> None:
    gardener.make(ANNOTATION2)
    gardener.parse(NDT7)
    [(_, assets)] = gardener.runs("parsed_jobs")
    assert assets == ["tmp_ndt/ndt7", "raw_ndt/ndt7", "ndt/ndt7"]


def test_d15_the_join_waits_for_annotations_that_are_on_their_way(gardener: Gardener) -> None:
    gardener.make(ANNOTATION2)
    gardener.ask(ANNOTATION2)  # they are about to change
    gardener.parse(ANNOTATION2, requester="other")
    gardener.parse(NDT7)
    gardener.make(NDT7)
    assert gardener.joins() == []
    gardener.make(ANNOTATION2)
    assert len(gardener.joins()) == 1


def test_consecutive_dates_are_one_run(gardener: Gardener) -> None:
    days = [DAY + dt.timedelta(days=n) for n in (0, 1, 2, 4)]
    jobs = [gardener.parse(ANNOTATION2, day) for day in days]
    several, one = gardener.tick("parsed_jobs").run_requests or ()
    assert dates_of(several) == "2024-03-01..2024-03-03"
    assert several.partition_key is None
    assert several.tags[JOB_TAG] == f"{jobs[0].id}..20240303"
    assert dates_of(one) == "2024-03-05"


def test_a_range_waits_for_a_neighbour_that_is_being_parsed(gardener: Gardener) -> None:
    gardener.parse(ANNOTATION2)
    gardener.ask(ANNOTATION2, DAY + dt.timedelta(days=1))
    assert gardener.runs("parsed_jobs") == []
    [job] = gardener.store.lease(1, now=NOW)
    Parser(gardener.store).finish(job)
    [(dates, _)] = gardener.runs("parsed_jobs")
    assert dates == "2024-03-01..2024-03-02"


def test_a_daily_date_waits_for_no_neighbour(gardener: Gardener) -> None:
    gardener.parse(ANNOTATION2, priority=Priority.DAILY)
    gardener.ask(ANNOTATION2, DAY + dt.timedelta(days=1), priority=Priority.DAILY)
    assert len(gardener.runs("parsed_jobs")) == 1


def test_dates_that_a_run_makes_are_not_started_twice(gardener: Gardener) -> None:
    gardener.parse(ANNOTATION2)
    run_id = gardener.run(DagsterRunStatus.NOT_STARTED, {"dagster/partition": DAY.isoformat()})
    gardener.parse(ANNOTATION2, DAY + dt.timedelta(days=1))
    assert [dates for dates, _ in gardener.runs("parsed_jobs")] == ["2024-03-02"]
    gardener.instance.run_storage.handle_run_event(run_id, run_event(DagsterRunStatus.SUCCESS))
    [(dates, _)] = gardener.runs("parsed_jobs")  # it was none of the sensor's, and made no tables
    assert dates == "2024-03-01..2024-03-02"


def test_d27_a_date_that_is_no_partition_stops_no_other(gardener: Gardener) -> None:
    early = dt.date(2023, 12, 31)
    gardener.parse(ANNOTATION2, early, run_id=gardener.run(DagsterRunStatus.SUCCESS))
    alone = gardener.tick("parsed_jobs")
    assert "ndt/annotation2/20231231" in str(alone.skip_reason)
    assert "start_date, 2024-01-01" in str(alone.skip_reason)
    assert alone.asset_events == []
    gardener.parse(ANNOTATION2)
    assert [dates for dates, _ in gardener.runs("parsed_jobs")] == ["2024-03-01"]


def test_d27_a_join_of_a_date_that_is_no_partition_stops_no_other(gardener: Gardener) -> None:
    for date in (dt.date(2023, 12, 1), DAY):
        gardener.make(ANNOTATION2, date)
        gardener.make(NDT7, date)
    assert [dates for dates, _ in gardener.runs("joins")] == ["2024-03-01..2024-03-02"]


CHAIN = ("parsed/ndt/annotation2", "tmp_ndt/annotation2", "raw_ndt/annotation2")
NDT7_CHAIN = ("parsed/ndt/ndt7", "tmp_ndt/ndt7", "raw_ndt/ndt7", "ndt/ndt7")


def test_d45_the_tables_of_a_whole_chain_backfill_carry_its_tag(gardener: Gardener) -> None:
    one = gardener.backfill(BulkActionStatus.REQUESTED, *CHAIN)
    two = gardener.backfill(BulkActionStatus.REQUESTED, *CHAIN)
    for backfill, day in ((one, 1), (one, 2), (two, 3)):
        gardener.parse(ANNOTATION2, DAY.replace(day=day), backfill_id=backfill, covers_tables=True)
    requests = gardener.tick("parsed_jobs").run_requests or ()
    assert {dates_of(r): r.tags[BACKFILL_TAG] for r in requests} == {
        "2024-03-01..2024-03-02": one,
        "2024-03-03": two,
    }


def test_d45_what_a_whole_chain_backfill_has_only_loaded_is_taken_further(
    gardener: Gardener,
) -> None:
    """Its daemon starts raw together with tmp only if both lack the same dates."""
    backfill = gardener.backfill(BulkActionStatus.REQUESTED, *CHAIN)
    job = gardener.parse(ANNOTATION2, backfill_id=backfill, covers_tables=True)
    run_id = gardener.run(DagsterRunStatus.NOT_STARTED)
    gardener.store.stage(job.key, JobState.LOADING, run_id=run_id, now=NOW)
    assert gardener.runs("parsed_jobs") == []
    gardener.instance.run_storage.handle_run_event(run_id, run_event(DagsterRunStatus.SUCCESS))
    [(dates, assets)] = gardener.runs("parsed_jobs")
    assert (dates, assets[-1]) == ("2024-03-01", "raw_ndt/annotation2")


def test_a_backfill_that_is_over_leaves_the_rest_to_the_sensor(gardener: Gardener) -> None:
    backfill = gardener.backfill(BulkActionStatus.COMPLETED_FAILED, *CHAIN)
    gardener.parse(ANNOTATION2, backfill_id=backfill, covers_tables=True)
    [request] = gardener.tick("parsed_jobs").run_requests or ()
    assert BACKFILL_TAG not in request.tags


@pytest.mark.parametrize("status", [BulkActionStatus.CANCELING, BulkActionStatus.CANCELED])
def test_of_a_cancelled_whole_chain_backfill_nothing_goes_on(
    gardener: Gardener, status: BulkActionStatus
) -> None:
    backfill = gardener.backfill(status, *CHAIN, *NDT7_CHAIN)
    of_backfill: dict[str, Any] = {"backfill_id": backfill, "covers_tables": True}
    parsed = gardener.parse(ANNOTATION2, **of_backfill)
    other = gardener.parse(ANNOTATION2, DAY.replace(day=9))
    waits = gardener.parse(NDT7, **of_backfill)
    gardener.make(NDT7)  # waits for its annotations
    assert gardener.latest(waits).state is JobState.JOINING
    assert [dates for dates, _ in gardener.runs("parsed_jobs")] == [other.key.date.isoformat()]
    for job in (parsed, waits):
        failed = gardener.latest(job)
        assert failed.state is JobState.FAILED
        assert "the backfill that asked for it was cancelled" in failed.error
    gardener.make(ANNOTATION2)
    assert gardener.joins() == []
    # Somebody asks for the date again: the join is theirs.
    gardener.parse(ANNOTATION2, requester="again")
    gardener.make(ANNOTATION2)
    assert len(gardener.joins()) == 1


def test_a_date_that_somebody_else_wants_outlives_a_cancelled_backfill(
    gardener: Gardener,
) -> None:
    backfill = gardener.backfill(BulkActionStatus.CANCELED, *CHAIN)
    gardener.ask(ANNOTATION2, requester="daily")
    gardener.parse(ANNOTATION2, backfill_id=backfill, covers_tables=True)
    assert len(gardener.runs("parsed_jobs")) == 1


def test_d45_a_join_of_a_whole_chain_backfill_carries_its_tag(gardener: Gardener) -> None:
    days = [DAY, DAY.replace(day=2)]
    backfill = gardener.backfill(BulkActionStatus.REQUESTED, *CHAIN, *NDT7_CHAIN, dates=days)
    for name in (ANNOTATION2, NDT7):
        for day in days:
            gardener.parse(name, day, backfill_id=backfill, covers_tables=True)
            gardener.make(name, day)
    [own, after] = gardener.tick("joins").run_requests or ()
    assert (dates_of(own), own.tags[BACKFILL_TAG]) == ("2024-03-01..2024-03-02", backfill)
    assert (dates_of(after), after.tags.get(BACKFILL_TAG)) == ("2024-03-03", None)


def test_joins_of_a_backfill_of_tables_alone_are_left_to_it(gardener: Gardener) -> None:
    backfill = gardener.backfill(BulkActionStatus.REQUESTED, *NDT7_CHAIN[1:])
    gardener.make(ANNOTATION2)
    gardener.make(NDT7)
    assert gardener.joins() == []
    gardener.end(backfill, BulkActionStatus.COMPLETED_FAILED)
    assert len(gardener.joins()) == 1


def test_what_no_live_run_waits_for_is_reported_once(gardener: Gardener) -> None:
    gardener.parse(ANNOTATION2, requester="gone")
    died = gardener.tick("parsed_jobs", keep=False)
    assert len(died.asset_events) == 1
    said = gardener.tick("parsed_jobs")
    [event] = said.asset_events
    assert (event.asset_key, event.partition) == (
        dg.AssetKey(["parsed", "ndt", "annotation2"]),
        "2024-03-01",
    )
    assert len(json.loads(said.cursor or "[]")) == 1
    assert gardener.tick("parsed_jobs").asset_events == []


def test_what_a_live_run_waits_for_is_left_to_it(gardener: Gardener) -> None:
    run_id = gardener.run(DagsterRunStatus.NOT_STARTED)
    gardener.parse(ANNOTATION2, run_id=run_id)
    assert gardener.tick("parsed_jobs").asset_events == []


OF_SENSOR = {"dagster/sensor_name": "parsed_jobs", "dagster/partition": DAY.isoformat()}


@pytest.mark.parametrize("tags", [{}, OF_SENSOR], ids=["of somebody", "of the sensor"])
def test_tables_whose_run_was_killed_are_asked_for_again(
    gardener: Gardener, tags: dict[str, str]
) -> None:
    job = gardener.parse(ANNOTATION2)
    keys = {job.id}
    for _ in range(2):
        run_id = gardener.run(DagsterRunStatus.FAILURE, tags)
        gardener.store.stage(job.key, JobState.LOADING, run_id=run_id, now=NOW)
        [again] = gardener.tick("parsed_jobs").run_requests or ()
        assert again.partition_key == DAY.isoformat()
        assert again.run_key not in keys
        keys.add(again.run_key or "")
        assert gardener.latest(job).state is JobState.LOADING


def test_tables_whose_run_never_began_are_asked_for_again_but_not_for_ever(
    gardener: Gardener,
) -> None:
    before = gardener.run(DagsterRunStatus.FAILURE, OF_SENSOR)  # it was for an older parse
    job = gardener.parse(ANNOTATION2)
    other = gardener.parse(ANNOTATION2, DAY + dt.timedelta(days=1))
    for _ in range(MOST_LOST - 1):
        gardener.run(DagsterRunStatus.FAILURE, OF_SENSOR)
        assert len(gardener.runs("parsed_jobs")) == 1
        assert gardener.latest(job).state is JobState.POST_PROCESSING
    run_id = gardener.run(DagsterRunStatus.FAILURE, OF_SENSOR)
    gardener.tick("parsed_jobs")
    failed = gardener.latest(job)
    assert failed.state is JobState.FAILED
    assert run_id in failed.error
    assert before not in failed.error
    assert gardener.latest(other).state is JobState.POST_PROCESSING


def test_tables_whose_run_was_cancelled_are_not_asked_for_again(gardener: Gardener) -> None:
    job = gardener.parse(ANNOTATION2)
    gardener.run(DagsterRunStatus.CANCELED, OF_SENSOR)
    assert gardener.runs("parsed_jobs") == []
    assert gardener.latest(job).state is JobState.FAILED


@pytest.mark.parametrize("begun", [False, True], ids=["never begun", "in the middle"])
def test_a_run_that_dagster_retries_is_not_lost(gardener: Gardener, begun: bool) -> None:
    job = gardener.parse(ANNOTATION2)
    run_id = gardener.run(DagsterRunStatus.FAILURE, OF_SENSOR | {"dagster/will_retry": "true"})
    if begun:
        gardener.store.stage(job.key, JobState.LOADING, run_id=run_id, now=NOW)
    assert gardener.runs("parsed_jobs") == []
    assert gardener.latest(job).state is not JobState.FAILED
    retry = gardener.run(DagsterRunStatus.NOT_STARTED, OF_SENSOR)
    gardener.instance.add_run_tags(run_id, {"dagster/auto_retry_run_id": retry})
    assert gardener.runs("parsed_jobs") == []
    assert gardener.latest(job).state is not JobState.FAILED
    gardener.instance.run_storage.handle_run_event(retry, run_event(DagsterRunStatus.FAILURE))
    assert len(gardener.runs("parsed_jobs")) == 1


def test_a_retry_that_dagster_will_not_start_is_lost(gardener: Gardener) -> None:
    """It announces retries of runs whose backfill is over, and starts none."""
    backfill = gardener.backfill(BulkActionStatus.COMPLETED_FAILED, *CHAIN)
    job = gardener.parse(ANNOTATION2)
    tags = OF_SENSOR | {"dagster/will_retry": "true", BACKFILL_TAG: backfill}
    gardener.run(DagsterRunStatus.FAILURE, tags)
    [again] = gardener.tick("parsed_jobs").run_requests or ()
    assert again.run_key != job.id


def test_the_status_page_is_told_of_backfills_of_tables_alone_while_they_run(
    gardener: Gardener,
) -> None:
    later = DAY + dt.timedelta(days=1)
    keys = ("tmp_ndt/ndt7", "raw_ndt/ndt7", "raw_ndt/annotation2")
    backfill = gardener.backfill(BulkActionStatus.REQUESTED, *keys, dates=(DAY, later))
    gardener.backfill(BulkActionStatus.REQUESTED, "parsed/ndt/ndt7", *keys[:2])  # asks for jobs
    for _ in range(2):
        gardener.tick("parsed_jobs")
        [progress] = gardener.store.backfills.unfinished(now=dt.datetime.now(dt.UTC))
        assert (progress.backfill_id, progress.jobs, progress.complete) == (backfill, 4, 0)
        assert progress.sources == ["ndt/annotation2", "ndt/ndt7"]
        assert (progress.first, progress.last, progress.asked) == (DAY, later, NOW)
    gardener.end(backfill, BulkActionStatus.COMPLETED_SUCCESS)
    gardener.tick("parsed_jobs")
    assert gardener.store.backfills.unfinished(now=dt.datetime.now(dt.UTC)) == []
