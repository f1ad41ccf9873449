import datetime as dt
import json

import dagster as dg
import pytest
from google.cloud import storage
from job_requests import make_key, request_for
from simulated import Parser, Put

from gardener_api.archive import ArchiveError
from gardener_api.config import GardenerConfig
from gardener_api.jobs.job import Job, JobState, Priority
from gardener_api.store.store import JobStore
from gardener_dagster.automation.late_archives import late_archives_sensor
from gardener_dagster.automation.run_requests import RUNS_PER_TICK
from gardener_dagster.planning.daily import newest_due
from gardener_dagster.planning.due_tables import job_key
from gardener_dagster.planning.late import Late, Looks, after_look, late_due, recent_keys
from gardener_dagster.planning.ranges import dates_between
from gardener_dagster.resources import GCSResource

NDT7 = "ndt/ndt7"
NOW = dt.datetime.now(dt.UTC)
DATE = newest_due(NOW)


class Looked:
    """The sensor, ticked by hand."""

    def __init__(
        self, config: GardenerConfig, store: JobStore, instance: dg.DagsterInstance
    ) -> None:
        self._sensor = late_archives_sensor(config)
        self._store = store
        self.instance = instance
        self.cursor: str | None = None

    def look(self) -> list[tuple[str | None, str | None]]:
        resources = {
            "job_store": self._store,
            "gcs": GCSResource(project="p", parsed_bucket="etl-mlab"),
        }
        with dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, resources=resources
        ) as context:
            result = self._sensor(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        return [(r.partition_key, r.run_key) for r in result.run_requests or ()]


@pytest.fixture
def looks(
    config: GardenerConfig,
    store: JobStore,
    instance: dg.DagsterInstance,
    bucket: storage.Bucket,
) -> Looked:
    return Looked(config, store, instance)


def parse(store: JobStore, config: GardenerConfig, archives: int = 1, requester: str = "r") -> Job:
    source = config.source(NDT7)
    request = request_for(
        job_key(source, DATE),
        requester=requester,
        run_id="r",
        priority=Priority.DAILY,
        daily=True,
        join="",
        archives=archives,
    )
    [job] = store.enqueue([request], now=dt.datetime.now(dt.UTC))
    for leased in store.lease(1, now=dt.datetime.now(dt.UTC)):
        Parser(store).finish(leased)
    complete(store, config)
    return job


def complete(store: JobStore, config: GardenerConfig) -> None:
    for state in (JobState.LOADING, JobState.COMPLETE):
        key = job_key(config.source(NDT7), DATE)
        store.stage(key, state, run_id="t", now=dt.datetime.now(dt.UTC))


def test_d21_an_archive_that_came_late_is_parsed_once_it_is_stable(
    looks: Looked, store: JobStore, config: GardenerConfig, put_archive: Put
) -> None:
    put_archive(DATE, name="a.tgz")
    parse(store, config)
    assert looks.look() == []
    assert looks.look() == []
    put_archive(DATE, name="late.tgz")
    assert looks.look() == []
    put_archive(DATE, name="later.tgz")  # still coming
    assert looks.look() == []
    [(date, run_key)] = looks.look()
    assert date == DATE.isoformat()
    assert run_key is not None
    name = run_key.removeprefix("late/").removesuffix("~1")
    run = dg.DagsterRun(
        job_name="__ASSET_JOB",
        status=dg.DagsterRunStatus.STARTED,
        tags={"dagster/sensor_name": "late_archives", "gardener/late": name},
    )
    looks.instance.add_run(run)
    assert looks.look() == [], "until its job is made it is late, but a run is on it"
    parse(store, config, requester="late")
    assert looks.look() == []
    assert json.loads(looks.cursor or "") == {"seen": {}, "asked": {}}


def test_d21_an_empty_day_that_gets_archives_is_parsed(
    looks: Looked, store: JobStore, config: GardenerConfig, put_archive: Put
) -> None:
    parse(store, config, archives=0)
    put_archive(DATE)
    assert looks.look() == []
    assert len(looks.look()) == 1


def test_an_archive_that_was_replaced_is_late(
    looks: Looked, store: JobStore, config: GardenerConfig, put_archive: Put
) -> None:
    put_archive(DATE)
    parse(store, config)
    put_archive(DATE)
    looks.look()
    assert len(looks.look()) == 1


def test_what_is_to_be_parsed_anyway_is_not_asked_for(
    looks: Looked, store: JobStore, config: GardenerConfig, put_archive: Put
) -> None:
    parse(store, config, archives=0)
    source = config.source(NDT7)
    request = request_for(job_key(source, DATE), requester="again", run_id="r", join="", archives=1)
    store.enqueue([request], now=dt.datetime.now(dt.UTC))
    put_archive(DATE)
    looks.look()
    assert looks.look() == []


def test_a_date_whose_tables_are_being_made_is_looked_at_when_they_are(
    looks: Looked, store: JobStore, config: GardenerConfig, put_archive: Put
) -> None:
    source = config.source(NDT7)
    request = request_for(job_key(source, DATE), requester="r", run_id="r", join="", archives=0)
    store.enqueue([request], now=dt.datetime.now(dt.UTC))  # asking again would join this one
    put_archive(DATE)
    assert [looks.look(), looks.look()] == [[], []]
    complete(store, config)
    looks.look()
    assert len(looks.look()) == 1


def test_a_bucket_that_cannot_be_listed_is_an_error(
    looks: Looked, store: JobStore, config: GardenerConfig, bucket: storage.Bucket
) -> None:
    parse(store, config, archives=0)
    bucket.delete(force=True)
    with pytest.raises(ArchiveError, match="could not be listed"):
        looks.look()


def late_of(days: int, fingerprint: str = "f") -> list[Late]:
    keys = [make_key(DATE - n * dt.timedelta(days=1)) for n in range(days)]
    return [Late(key=key, names=("a",), fingerprint=fingerprint) for key in keys]


def test_no_more_runs_are_asked_for_in_a_tick_than_the_bound_and_the_others_later() -> None:
    late = late_of(RUNS_PER_TICK + 5)
    seen = after_look(late, Looks(), [])
    first = late_due(late, seen, in_progress=())[:RUNS_PER_TICK]
    assert first == late[:RUNS_PER_TICK]
    # Until their jobs are made they are late still, and the others come.
    then = after_look(late, seen, first)
    second = late_due(late, then, in_progress={item.name for item in first})
    assert second == late[RUNS_PER_TICK:]


def test_a_run_that_was_lost_before_it_asked_is_tried_again_but_not_for_ever() -> None:
    [item] = late_of(1)
    looks, tries = after_look([item], Looks(), []), 0
    while late_due([item], looks, in_progress=()):
        assert late_due([item], looks, in_progress={item.name}) == []
        looks = after_look([item], looks, [item])
        tries += 1
    assert tries == 3


def test_more_late_archives_of_a_date_that_was_asked_for_are_another_matter() -> None:
    [old], [new] = late_of(1), late_of(1, "g")
    asked = after_look([old], Looks(seen={str(old.key): "f"}), [old])
    assert late_due([new], asked, in_progress={old.name}) == []
    assert late_due([new], after_look([new], asked, []), in_progress={old.name}) == [new]


def test_d27_dates_before_a_start_that_was_moved_are_not_looked_at(
    looks: Looked, store: JobStore, config: GardenerConfig, put_archive: Put
) -> None:
    parse(store, config)
    put_archive(DATE)
    moved = config.model_copy(update={"start_date": DATE + dt.timedelta(days=1)})
    later = Looked(moved, store, looks.instance)
    assert [later.look(), later.look()] == [[], []]


def test_d40_a_century_of_days(config: GardenerConfig) -> None:
    many = config.late_archives.model_copy(update={"days": 36_525})
    keys = recent_keys(config.model_copy(update={"late_archives": many}), now=NOW)
    assert {key.date for key in keys} == set(dates_between(config.start_date, DATE))


def test_d40_a_cursor_that_is_none_says_what_to_do(looks: Looked) -> None:
    looks.cursor = "2024-03-01"
    with pytest.raises(ValueError, match=r"cannot be read: .* clear the sensor's cursor"):
        looks.look()


def test_a_cursor_of_an_earlier_version_is_a_first_look(looks: Looked) -> None:
    looks.cursor = json.dumps({str(make_key(DATE)): "fingerprint"})
    assert looks.look() == []


def test_none_is_looked_for_where_the_config_says_so(config: GardenerConfig) -> None:
    none = config.late_archives.model_copy(update={"days": 0})
    sensor = late_archives_sensor(config.model_copy(update={"late_archives": none}))
    assert sensor.default_status is dg.DefaultSensorStatus.STOPPED
