import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from job_requests import request_for
from simulated import Parser, Put

from gardener_api.config import GardenerConfig
from gardener_api.jobs.job import JobKey, Priority
from gardener_api.store.store import JobStore
from gardener_dagster.assets.requesters import cancelled_by
from gardener_dagster.automation.run_requests import RUNS_PER_TICK
from gardener_dagster.automation.schedules import build_schedules
from gardener_dagster.planning.daily import DailyRun, days_due, due_at, newest_due, recent_dates
from gardener_dagster.planning.due_tables import job_key
from gardener_dagster.planning.ranges import dates_between

DAY = dt.date(2024, 3, 10)
TICK = dt.datetime(2024, 3, 11, 10, 30, tzinfo=dt.UTC)
ONE = dt.timedelta(days=1)
HOUR = dt.timedelta(hours=1)


def plan(
    config: GardenerConfig,
    asked: dict[JobKey, dt.datetime] | None = None,
    first: dict[str, dt.date] | None = None,
    on_their_way: set[tuple[str, dt.date]] | None = None,
    now: dt.datetime = TICK,
) -> list[tuple[int, int, list[str]]]:
    runs = days_due(
        config,
        now=now,
        asked=asked or {},
        first_daily=first or {},
        on_their_way=on_their_way or set(),
    )
    assert all(isinstance(run, DailyRun) for run in runs)
    return [(r.first.day, r.last.day, [s.datatype for s in r.sources]) for r in runs]


BOTH = ["annotation2", "ndt7"]


def test_yesterday_is_due_from_10_30() -> None:
    assert newest_due(TICK) == DAY
    assert newest_due(TICK - dt.timedelta(minutes=1)) == DAY - ONE
    assert due_at(DAY) == TICK


def test_a_new_gardener_starts_with_yesterday(config: GardenerConfig) -> None:
    assert plan(config) == [(10, 10, BOTH)]


def test_days_that_were_missed_are_caught_up_in_one_run(config: GardenerConfig) -> None:
    first = {source.name: DAY - 30 * ONE for source in config.sources}
    asked = {job_key(s, DAY - 4 * ONE): due_at(DAY - 4 * ONE) for s in config.sources}
    before = {job_key(s, DAY - n * ONE): due_at(DAY - n * ONE)
              for s in config.sources for n in range(5, 9)}  # fmt: skip
    assert plan(config, asked | before, first) == [(7, 10, BOTH)]


def test_no_more_days_are_caught_up_than_the_config_says(config: GardenerConfig) -> None:
    first = {source.name: DAY - 30 * ONE for source in config.sources}
    assert plan(config, {}, first) == [(4, 10, BOTH)]


def test_a_source_that_was_added_has_nothing_to_catch_up(config: GardenerConfig) -> None:
    assert plan(config, {}, {"ndt/annotation2": DAY - 2 * ONE}) == [
        (8, 9, ["annotation2"]),
        (10, 10, BOTH),
    ]


def test_what_was_asked_for_before_it_was_due_is_asked_for_again(config: GardenerConfig) -> None:
    early = {job_key(s, DAY): TICK - HOUR for s in config.sources}
    assert plan(config, early) == [(10, 10, BOTH)]
    assert plan(config, dict.fromkeys(early, TICK), now=TICK + HOUR) == []


def test_what_a_run_is_about_to_ask_for_is_left_to_it(config: GardenerConfig) -> None:
    assert plan(config, on_their_way={("ndt/ndt7", DAY)}) == [(10, 10, ["annotation2"])]


def test_nothing_is_before_the_start_of_the_history(config: GardenerConfig) -> None:
    late = config.model_copy(update={"start_date": DAY - ONE})
    first = {source.name: DAY - 30 * ONE for source in config.sources}
    assert plan(late, {}, first) == [(9, 10, BOTH)]


Tick = Callable[..., list[dg.RunRequest]]


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """One that a schedule's context can open again by its reference."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as local:
        yield local


@pytest.fixture
def tick(config: GardenerConfig, store: JobStore, instance: dg.DagsterInstance) -> Tick:
    return ticker(config, store, instance)


def ticker(config: GardenerConfig, store: JobStore, instance: dg.DagsterInstance) -> Tick:
    [schedule] = build_schedules(config)

    def evaluate(at: dt.datetime = TICK) -> list[dg.RunRequest]:
        context = dg.build_schedule_context(
            instance=instance, scheduled_execution_time=at, resources={"job_store": store}
        )
        result = schedule(context)
        if isinstance(result, dg.SkipReason):
            return []
        assert isinstance(result, list)
        return result

    return evaluate


def ask(store: JobStore, config: GardenerConfig, name: str, date: dt.date, daily: bool) -> None:
    source = config.source(name)
    request = request_for(
        job_key(source, date),
        requester="r",
        run_id="r",
        priority=Priority.DAILY,
        daily=daily,
        join="",
        archives=1,
    )
    store.enqueue([request], now=due_at(date))


def test_d02_what_was_missed_is_found_again_in_the_store(
    tick: Tick, store: JobStore, config: GardenerConfig
) -> None:
    for source in config.sources:
        ask(store, config, source.name, DAY - 4 * ONE, daily=True)
    [request] = tick()
    assert request.partition_key is None
    assert request.tags["dagster/asset_partition_range_start"] == "2024-03-07"
    assert request.tags["dagster/asset_partition_range_end"] == "2024-03-10"
    assert request.tags["gardener/priority"] == "daily"
    for source in config.sources:
        for n in range(4):
            ask(store, config, source.name, DAY - n * ONE, daily=True)
    assert tick(TICK + HOUR) == []


@pytest.mark.parametrize(
    ("by", "dates"), [(cancelled_by("r"), []), ("an operator's script", ["2024-03-10"])]
)
def test_d26_what_anything_but_a_person_took_back_is_asked_for_again(
    tick: Tick, store: JobStore, config: GardenerConfig, by: str, dates: list[str]
) -> None:
    for source in config.sources:
        ask(store, config, source.name, DAY, daily=True)
    assert tick(TICK + HOUR) == []
    store.withdraw("r", by=by, now=TICK)
    assert [request.partition_key for request in tick(TICK + HOUR)] == dates


def test_no_more_runs_are_asked_for_in_a_tick_than_the_bound(
    config: GardenerConfig, store: JobStore, instance: dg.DagsterInstance
) -> None:
    """Every other date was asked for: each gap is a run, and the newest are first."""
    daily = config.daily.model_copy(update={"catch_up_days": 60})
    config = config.model_copy(update={"daily": daily})
    for n in range(1, 60, 2):
        for source in config.sources:
            ask(store, config, source.name, DAY - n * ONE, daily=True)
    tick = ticker(config, store, instance)
    dates = [request.partition_key for request in tick()]
    assert dates == [str(DAY - n * ONE) for n in reversed(range(0, 2 * RUNS_PER_TICK, 2))]


def test_d27_where_no_date_is_a_partition_any_more_the_tick_says_so(
    config: GardenerConfig, store: JobStore, instance: dg.DagsterInstance
) -> None:
    for source in config.sources:
        ask(store, config, source.name, DAY - ONE, daily=True)
    moved = config.model_copy(update={"start_date": DAY + ONE})
    assert ticker(moved, store, instance)() == []


@pytest.mark.parametrize("days", [36_525, 0])
def test_d40_a_century_of_days_to_catch_up(config: GardenerConfig, days: int) -> None:
    many = config.daily.model_copy(update={"catch_up_days": days})
    dates = recent_dates(config, many.catch_up_days, now=TICK)
    assert dates == (dates_between(config.start_date, DAY) if days else [])


def test_d27_a_daily_run_that_a_person_tagged_with_no_dates_stops_no_tick(
    tick: Tick, instance: dg.DagsterInstance
) -> None:
    tags = {"gardener/priority": "daily", "dagster/partition": "yesterday"}
    run = dg.DagsterRun(
        job_name="__ASSET_JOB",
        status=dg.DagsterRunStatus.STARTED,
        tags=tags,
        asset_selection=frozenset({dg.AssetKey(["parsed", "ndt", "ndt7"])}),
    )
    instance.add_run(run)
    assert [request.partition_key for request in tick()] == ["2024-03-10"]


def test_a_tick_that_is_done_over_asks_under_the_same_key(tick: Tick) -> None:
    assert (
        [r.run_key for r in tick()]
        == [r.run_key for r in tick()]
        == ["daily/2024-03-10/20240311T1030"]
    )
    assert [r.run_key for r in tick(TICK + HOUR)] != [r.run_key for r in tick()]


@pytest.mark.usefixtures("bucket")
def test_what_a_run_asked_for_is_not_asked_for_again(
    tick: Tick, defs: dg.Definitions, instance: dg.DagsterInstance, put_archive: Put, parser: Parser
) -> None:
    yesterday = newest_due(dt.datetime.now(dt.UTC))
    put_archive(yesterday)
    now = due_at(yesterday)
    [request] = tick(now)
    with parser:
        result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance,
            asset_selection=list(request.asset_selection or ()),
            partition_key=str(request.partition_key),
            tags=dict(request.tags),
        )
    assert result.success
    assert [job.daily for job in parser.seen] == [True]
    assert tick(now + HOUR) == []
