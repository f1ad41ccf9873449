import datetime as dt
from collections import Counter
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterRunStatus
from hypothesis import given, settings
from hypothesis import strategies as st
from job_requests import request_for

from gardener_api.config import GardenerConfig
from gardener_api.store.store import JobStore
from gardener_dagster.assets.keys import HISTORY_TAG, PRIORITY_TAG
from gardener_dagster.automation.historical_pass import historical_pass_sensor, tick
from gardener_dagster.planning.due_tables import job_key
from gardener_dagster.planning.history import Place, begin, move_on, span
from gardener_dagster.planning.ranges import dates_between

NOW = dt.datetime(2024, 3, 11, 12, tzinfo=dt.UTC)
YESTERDAY = NOW.date() - dt.timedelta(days=1)


def config_of(
    *sources: dict[str, Any], start: str = "2024-02-25", jobs_per_run: int = 6, recent: int = 10
) -> GardenerConfig:
    return GardenerConfig.model_validate(
        {
            "start_date": start,
            "history": {"jobs_per_run": jobs_per_run, "recent_days": recent},
            "sources": [{"bucket": "archive-mlab", "experiment": "ndt"} | s for s in sources],
        }
    )


FULL, RECENT = {"datatype": "full", "full_history": True}, {"datatype": "recent"}
DAILY = {"datatype": "pcap", "daily_only": True}


def chunks(config: GardenerConfig) -> list[tuple[str, str, tuple[str, ...]]]:
    place, found = begin(config, None, now=NOW), []
    while place.chunk:
        chunk = place.chunk
        found.append((f"{chunk.first:%m-%d}", f"{chunk.last:%m-%d}", chunk.sources))
        place = move_on(config, place, chunk.sources)
    return found


def test_d23_a_pass_goes_from_the_start_to_yesterday_in_chunks() -> None:
    assert chunks(config_of(FULL, start="2024-03-01", jobs_per_run=4)) == [
        ("03-01", "03-04", ("ndt/full",)),
        ("03-05", "03-08", ("ndt/full",)),
        ("03-09", "03-10", ("ndt/full",)),
    ]


def test_without_full_history_it_is_the_last_year_side_by_side_with_the_others() -> None:
    assert chunks(config_of(FULL, RECENT, DAILY, jobs_per_run=12)) == [
        ("02-25", "02-29", ("ndt/full",)),
        ("03-01", "03-06", ("ndt/full", "ndt/recent")),
        ("03-07", "03-10", ("ndt/full", "ndt/recent")),
    ]
    year = config_of(RECENT, start="2015-11-19", recent=365)
    assert span(year, year.sources[0], NOW) == (dt.date(2023, 3, 12), YESTERDAY)


def test_a_chunk_has_a_date_at_least_and_no_more_jobs_than_stated() -> None:
    for _, _, sources in chunks(config_of(FULL, RECENT, jobs_per_run=1)):
        assert len(sources) in (1, 2)


NAMES = ["a", "b", "c"]


@st.composite
def configs(draw: st.DrawFn) -> GardenerConfig:
    names = draw(st.sets(st.sampled_from(NAMES), min_size=1))
    return config_of(
        *(
            {"datatype": name, "full_history": name != "c", "daily_only": draw(st.booleans())}
            for name in sorted(names)
        ),
        jobs_per_run=draw(st.integers(1, 20)),
    )


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_every_date_of_every_source_is_asked_for_once_in_a_pass_whatever_changes(
    data: st.DataObject,
) -> None:
    asked: Counter[tuple[str, dt.date]] = Counter()
    config = data.draw(configs())
    place = begin(config, None, now=NOW)
    while place.chunk:
        # The configuration may change before the run is asked for, and after it; a restart reads
        # the place again.
        config = data.draw(st.one_of(st.just(config), configs()))
        place = Place.model_validate_json(place.model_dump_json())
        assert place.chunk is not None
        done = [s.name for s in config.sources if s.name in place.chunk.sources]
        days = dates_between(place.chunk.first, place.chunk.last)
        assert len(days) == 1 or len(days) * len(place.chunk.sources) <= 20
        asked.update((name, day) for name in done for day in days)
        config = data.draw(st.one_of(st.just(config), configs()))
        place = move_on(config, place, done)
    assert set(asked.values()) <= {1}
    for source in config.sources:
        for day in dates_between(*span(config, source, NOW)):
            assert asked[source.name, day] == 1
    following = begin(config, place, now=NOW)
    assert following.number == 2
    assert following.next == {}


# -- the sensor


class Sensor:
    """The sensor, ticked by hand, on an instance whose runs are made by hand."""

    def __init__(
        self, config: GardenerConfig, store: JobStore, instance: dg.DagsterInstance
    ) -> None:
        self.config, self.store, self.instance = config, store, instance
        self.cursor: str | None = None

    def tick(self) -> list[dg.RunRequest]:
        place = Place.model_validate_json(self.cursor) if self.cursor else None
        result = tick(self.config, place, self.instance, self.store, now=NOW)
        self.cursor = result.cursor or self.cursor
        return list(result.run_requests or ())

    def next_request(self) -> dg.RunRequest:
        for _ in range(3):
            if requests := self.tick():
                return requests[0]
        raise AssertionError("nothing was asked for")

    def start(self, request: dg.RunRequest, *, asks: bool = True) -> str:
        run = dg.DagsterRun(
            job_name="__ASSET_JOB",
            tags=dict(request.tags),
            status=DagsterRunStatus.STARTED,
            asset_selection=frozenset(request.asset_selection or ()),
        )
        if asks:
            self._ask(run.run_id)
        return self.instance.add_run(run).run_id

    def _ask(self, run_id: str) -> None:
        source = self.config.sources[0]
        request = request_for(
            job_key(source, YESTERDAY),
            requester=f"run/{run_id}",
            run_id=run_id,
            join="",
            archives=1,
        )
        self.store.enqueue([request], now=NOW)

    def end(self, run_id: str) -> None:
        event = dg.DagsterEvent(
            event_type_value=dg.DagsterEventType.RUN_FAILURE.value, job_name="__ASSET_JOB"
        )
        self.instance.run_storage.handle_run_event(run_id, event)


@pytest.fixture
def sensor(store: JobStore, instance: dg.DagsterInstance) -> Sensor:
    return Sensor(config_of(FULL, RECENT, start="2024-03-06", jobs_per_run=6), store, instance)


def test_one_run_at_a_time_and_then_the_next_chunk(sensor: Sensor) -> None:
    first = sensor.next_request()
    assert first.tags[PRIORITY_TAG] == "historical"
    assert first.tags["dagster/asset_partition_range_start"] == "2024-03-06"
    assert first.tags["dagster/asset_partition_range_end"] == "2024-03-08"
    run_id = sensor.start(first)
    assert sensor.tick() == []
    assert sensor.tick() == []
    sensor.end(run_id)
    second = sensor.next_request()
    assert second.tags["dagster/asset_partition_range_start"] == "2024-03-09"
    sensor.end(sensor.start(second))
    again = sensor.next_request()
    assert again.tags["dagster/asset_partition_range_start"] == "2024-03-06"
    assert again.run_key not in (first.run_key, second.run_key)
    assert again.run_key is not None
    assert again.run_key.startswith("2/")


def test_a_tick_that_died_after_its_request_asks_under_the_same_key(sensor: Sensor) -> None:
    first = sensor.next_request()
    assert [r.run_key for r in sensor.tick()] == [first.run_key]


def test_a_run_that_was_lost_before_it_asked_is_tried_again_but_not_for_ever(
    sensor: Sensor,
) -> None:
    keys = []
    for _ in range(3):
        request = sensor.next_request()
        assert request.tags["dagster/asset_partition_range_start"] == "2024-03-06"
        keys.append(request.run_key)
        sensor.end(sensor.start(request, asks=False))
    assert len(set(keys)) == 3
    assert sensor.next_request().tags["dagster/asset_partition_range_start"] == "2024-03-09"


def test_more_runs_than_its_tries_end_a_chunk_too(sensor: Sensor) -> None:
    """Dagster's own retries of a run are runs of the chunk."""
    first = sensor.next_request()
    for run_id in [sensor.start(first, asks=False) for _ in range(4)]:
        sensor.end(run_id)
    assert sensor.next_request().tags["dagster/asset_partition_range_start"] == "2024-03-09"


def test_d27_a_chunk_before_a_start_that_was_moved_is_skipped_and_named(sensor: Sensor) -> None:
    sensor.next_request()
    sensor.config = config_of(FULL, RECENT, start="2024-03-10")
    place = Place.model_validate_json(sensor.cursor or "")
    result = tick(sensor.config, place, sensor.instance, sensor.store, now=NOW)
    assert not result.run_requests
    assert result.skip_reason is not None
    assert "2024-03-06 to 2024-03-08 of ndt/full, ndt/recent" in str(result.skip_reason)
    assert "start_date 2024-03-10" in str(result.skip_reason)
    sensor.cursor = result.cursor
    assert sensor.next_request().partition_key == "2024-03-10"


def test_d40_a_century_of_recent_days() -> None:
    config = config_of(RECENT, start="2015-11-19", recent=36_525)
    assert span(config, config.sources[0], NOW) == (dt.date(2015, 11, 19), YESTERDAY)


@pytest.mark.parametrize("cursor", ["{", "[]", '{"number": 1}', '{"number": "one"}'])
def test_d40_a_cursor_that_is_none_says_what_to_do(
    sensor: Sensor, store: JobStore, instance: dg.DagsterInstance, cursor: str
) -> None:
    definition = historical_pass_sensor(sensor.config)
    resources = {"job_store": store}
    context = dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources)
    with context, pytest.raises(ValueError, match=r"cannot be read: .* clear the sensor's cursor"):
        definition(context)


def test_a_re_execution_of_a_chunk_is_waited_for_too(sensor: Sensor) -> None:
    first = sensor.next_request()
    sensor.end(sensor.start(first))
    sensor.start(first)
    assert sensor.tick() == []
    assert sensor.tick() == []


def test_it_waits_for_the_tables_of_what_it_has_parsed(
    sensor: Sensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensor.store.days, "waiting_for_tables", lambda _: 6)
    assert [sensor.tick() for _ in range(3)] == [[], [], []]


def test_a_chunk_that_the_config_does_not_allow_any_more_is_planned_anew(sensor: Sensor) -> None:
    sensor.next_request()
    sensor.config = config_of(RECENT, start="2024-03-10")
    request = sensor.next_request()
    assert request.partition_key == "2024-03-10"
    assert request.run_key == f"{request.tags[HISTORY_TAG]}~1"


def test_nothing_to_do_begins_no_pass(sensor: Sensor) -> None:
    sensor.config = config_of(DAILY)
    assert [sensor.tick() for _ in range(3)] == [[], [], []]
    assert sensor.cursor is None
