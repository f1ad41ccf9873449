import datetime as dt

from dagster import DagsterRunStatus
from ticked_sensors import ANNOTATION2, DAY, NDT7, NOW, Gardener, all_dates, dates_of

from gardener_api.config import GardenerConfig
from gardener_api.jobs.job import JobState, Priority
from gardener_dagster.assets.keys import QUEUE_TAG
from gardener_dagster.planning.daily import newest_due


def test_a_join_whose_run_was_lost_fails_its_job(gardener: Gardener) -> None:
    gardener.make(ANNOTATION2)
    job = gardener.parse(NDT7)
    gardener.make(NDT7)
    assert len(gardener.joins()) == 1
    tags = {"dagster/sensor_name": "joins", "dagster/partition": DAY.isoformat()}
    lost = gardener.run(DagsterRunStatus.FAILURE, tags | {"dagster/will_retry": "true"})
    assert gardener.joins() == [], "Dagster retries it"
    gardener.instance.add_run_tags(lost, {"dagster/will_retry": "false"})
    assert gardener.joins() == []
    failed = gardener.latest(job)
    assert failed.state is JobState.FAILED
    assert lost in failed.error
    now = dt.datetime.now(dt.UTC)  # after the run that was lost: other inputs are another join
    gardener.store.tables.record_partition("raw_ndt.annotation2", DAY, rows=1, run_id="t", now=now)
    assert len(gardener.joins()) == 1


def test_d16_new_annotations_join_again_what_reads_them_once(
    gardener: Gardener, config: GardenerConfig
) -> None:
    after = DAY + dt.timedelta(days=1)
    log, ndt7 = gardener.store.tables, config.source(NDT7)
    for date in (DAY, after):
        gardener.make(ANNOTATION2, date)
        gardener.make(NDT7, date)

    def join_all() -> list[str]:
        due = gardener.tick("joins").run_requests or ()
        dates = [date for request in due for date in all_dates(request)]
        for date in dates:
            inputs = log.join_inputs("raw_ndt.ndt7", "raw_ndt.annotation2", date)
            log.record_join(str(ndt7.joined_table), date, inputs, rows=1, run_id="j", now=NOW)
        return [str(date) for date in dates]

    unknown = "2024-03-03"  # an older gardener may have written its rows
    assert join_all() == ["2024-03-01", "2024-03-02", unknown]
    assert join_all() == []
    gardener.make(ANNOTATION2, DAY)
    assert join_all() == ["2024-03-01", "2024-03-02"]
    assert join_all() == []
    gardener.make(ANNOTATION2, after)
    assert join_all() == ["2024-03-02", unknown]
    assert join_all() == []


def test_a_join_is_as_urgent_as_the_job_that_waits_for_it(gardener: Gardener) -> None:
    later = DAY + dt.timedelta(days=1)
    for date, priority in ((DAY, Priority.HISTORICAL), (later, Priority.DAILY)):
        gardener.make(ANNOTATION2, date)
        gardener.parse(NDT7, date, priority=priority)
        gardener.make(NDT7, date)
    requests = gardener.tick("joins").run_requests or ()
    urgency = {dates_of(request): int(request.tags[QUEUE_TAG]) for request in requests}
    # For the rows of the third date, which an older gardener may have written, nobody waits.
    assert urgency == {"2024-03-01": -10, "2024-03-02": 10, "2024-03-03": 0}


def test_a_date_that_is_still_to_come_is_not_joined(gardener: Gardener) -> None:
    newest = newest_due(dt.datetime.now(dt.UTC))
    gardener.make(ANNOTATION2, newest)
    assert len(gardener.joins(newest)) == 1
    assert gardener.joins(newest + dt.timedelta(days=1)) == []


def test_a_join_that_was_refused_is_not_started_again_for_the_same_inputs(
    gardener: Gardener, config: GardenerConfig
) -> None:
    gardener.make(NDT7)
    assert len(gardener.joins()) == 1
    log = gardener.store.tables
    inputs = log.join_inputs("raw_ndt.ndt7", "raw_ndt.annotation2", DAY)
    log.begin_join("ndt.ndt7", DAY, inputs, run_id="j", now=NOW)
    assert gardener.joins() == []
    gardener.make(ANNOTATION2)
    assert len(gardener.joins()) == 1


def test_a_slow_join_of_older_inputs_does_not_leave_the_partition_stale(
    gardener: Gardener, config: GardenerConfig
) -> None:
    gardener.make(ANNOTATION2)
    gardener.make(NDT7)
    log, read = gardener.store.tables, ("raw_ndt.ndt7", "raw_ndt.annotation2", DAY)
    old = log.join_inputs(*read)
    log.begin_join("ndt.ndt7", DAY, old, run_id="slow", now=NOW)
    gardener.make(NDT7)
    first = gardener.joins()
    new = log.join_inputs(*read)
    log.begin_join("ndt.ndt7", DAY, new, run_id="quick", now=NOW)
    log.record_join("ndt.ndt7", DAY, new, rows=1, run_id="quick", now=NOW)
    log.record_join("ndt.ndt7", DAY, old, rows=1, run_id="slow", now=NOW)
    again = gardener.joins()
    assert len(again) == 1
    assert again != first  # or Dagster would not start it
