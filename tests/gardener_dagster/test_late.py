import datetime as dt
import json

import dagster as dg
import pytest
from asks import ask_for
from google.cloud import storage
from simulated import Parser, Put

from gardener_api.archive import ArchiveError
from gardener_api.config import GardenerConfig
from gardener_api.jobs import Job, JobState, Priority
from gardener_api.store import JobStore
from gardener_dagster.daily import newest_due
from gardener_dagster.late import late_archives_sensor
from gardener_dagster.planning import job_key
from gardener_dagster.resources import GCSResource

NDT7 = "ndt/ndt7"
DATE = newest_due(dt.datetime.now(dt.UTC))


class Looks:
    """The sensor, ticked by hand."""

    def __init__(self, config: GardenerConfig, store: JobStore) -> None:
        self._sensor = late_archives_sensor(config)
        self._store = store
        self.cursor: str | None = None

    def look(self) -> list[tuple[str | None, str | None]]:
        resources = {
            "job_store": self._store,
            "gcs": GCSResource(project="p", parsed_bucket="etl-mlab"),
        }
        with dg.build_sensor_context(cursor=self.cursor, resources=resources) as context:
            result = self._sensor(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        return [(r.partition_key, r.run_key) for r in result.run_requests or ()]


@pytest.fixture
def looks(config: GardenerConfig, store: JobStore, bucket: storage.Bucket) -> Looks:
    return Looks(config, store)


def parse(store: JobStore, config: GardenerConfig, archives: int = 1, requester: str = "r") -> Job:
    source = config.source(NDT7)
    wish = ask_for(
        job_key(source, DATE),
        requester=requester,
        run_id="r",
        priority=Priority.DAILY,
        daily=True,
        join="",
        archives=archives,
    )
    [job] = store.enqueue([wish], now=dt.datetime.now(dt.UTC))
    for leased in store.lease(1, now=dt.datetime.now(dt.UTC)):
        Parser(store).finish(leased)
    complete(store, config)
    return job


def complete(store: JobStore, config: GardenerConfig) -> None:
    for state in (JobState.LOADING, JobState.COMPLETE):
        key = job_key(config.source(NDT7), DATE)
        store.stage(key, state, run_id="t", now=dt.datetime.now(dt.UTC))


def test_d21_an_archive_that_came_late_is_parsed_once_it_is_stable(
    looks: Looks, store: JobStore, config: GardenerConfig, put_archive: Put
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
    # Until its parse, the same key: Dagster starts no second run.
    assert looks.look() == [(date, run_key)]
    parse(store, config, requester="late")
    assert looks.look() == []
    assert json.loads(looks.cursor or "") == {}


def test_d21_an_empty_day_that_gets_archives_is_parsed(
    looks: Looks, store: JobStore, config: GardenerConfig, put_archive: Put
) -> None:
    parse(store, config, archives=0)
    put_archive(DATE)
    assert looks.look() == []
    assert len(looks.look()) == 1


def test_an_archive_that_was_replaced_is_late(
    looks: Looks, store: JobStore, config: GardenerConfig, put_archive: Put
) -> None:
    put_archive(DATE)
    parse(store, config)
    put_archive(DATE)
    looks.look()
    assert len(looks.look()) == 1


def test_what_is_to_be_parsed_anyway_is_not_asked_for(
    looks: Looks, store: JobStore, config: GardenerConfig, put_archive: Put
) -> None:
    parse(store, config, archives=0)
    source = config.source(NDT7)
    wish = ask_for(job_key(source, DATE), requester="again", run_id="r", join="", archives=1)
    store.enqueue([wish], now=dt.datetime.now(dt.UTC))
    put_archive(DATE)
    looks.look()
    assert looks.look() == []


def test_a_date_whose_tables_are_being_made_is_looked_at_when_they_are(
    looks: Looks, store: JobStore, config: GardenerConfig, put_archive: Put
) -> None:
    source = config.source(NDT7)
    wish = ask_for(job_key(source, DATE), requester="r", run_id="r", join="", archives=0)
    store.enqueue([wish], now=dt.datetime.now(dt.UTC))  # asking again would join this one
    put_archive(DATE)
    assert [looks.look(), looks.look()] == [[], []]
    complete(store, config)
    looks.look()
    assert len(looks.look()) == 1


def test_a_bucket_that_cannot_be_listed_is_an_error(
    looks: Looks, store: JobStore, config: GardenerConfig, bucket: storage.Bucket
) -> None:
    parse(store, config, archives=0)
    bucket.delete(force=True)
    with pytest.raises(ArchiveError, match="could not be listed"):
        looks.look()


def test_none_is_looked_for_where_the_config_says_so(config: GardenerConfig) -> None:
    none = config.late_archives.model_copy(update={"days": 0})
    sensor = late_archives_sensor(config.model_copy(update={"late_archives": none}))
    assert sensor.default_status is dg.DefaultSensorStatus.STOPPED
