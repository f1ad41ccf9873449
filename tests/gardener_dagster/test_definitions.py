from pathlib import Path

import dagster as dg
import pytest

from gardener_api.config import GardenerConfig, load_config
from gardener_dagster.automation.historical_pass import historical_pass_sensor
from gardener_dagster.definitions import build_defs, defs
from gardener_dagster.resources import GCSResource, JobStoreResource, WarehouseResource

PRODUCTION = Path(__file__).parent.parent / "fixtures" / "production.yml"


@pytest.fixture(scope="module")
def production() -> GardenerConfig:
    return load_config(PRODUCTION)


@pytest.fixture(scope="module")
def repository(production: GardenerConfig) -> dg.RepositoryDefinition:
    definitions = build_defs(
        production,
        job_store=JobStoreResource(url="sqlite:///none", lease_seconds=1, max_attempts=1),
        warehouse=WarehouseResource(project="p"),
        gcs=GCSResource(project="p", parsed_bucket="b"),
    )
    dg.Definitions.validate_loadable(definitions)
    return definitions.get_repository_def()


def test_every_source_of_production_has_its_chain(
    production: GardenerConfig, repository: dg.RepositoryDefinition
) -> None:
    graph = repository.asset_graph
    joined = [s for s in production.sources if s.joined_table]
    assert len(graph.get_all_asset_keys()) == 3 * 16 + len(joined) + 1  # and freshness
    for source in production.sources:
        raw = dg.AssetKey([f"raw_{source.experiment}", source.datatype])
        node = graph.get(raw)
        assert node.parent_keys == {dg.AssetKey([f"tmp_{source.experiment}", source.datatype])}
        assert node.group_name == source.experiment


def test_a_join_reads_its_raw_and_two_days_of_annotations(
    repository: dg.RepositoryDefinition,
) -> None:
    node = repository.asset_graph.get(dg.AssetKey(["ndt", "ndt7"]))
    annotations = dg.AssetKey(["raw_ndt", "annotation2"])
    assert node.parent_keys == {dg.AssetKey(["raw_ndt", "ndt7"]), annotations}
    mapping = node.partition_mappings[annotations]
    assert mapping == dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=0)


def test_partitions_begin_with_the_history(repository: dg.RepositoryDefinition) -> None:
    partitions = repository.asset_graph.get(dg.AssetKey(["parsed", "ndt", "ndt5"])).partitions_def
    assert partitions is not None
    assert partitions.get_first_partition_key() == "2015-11-19"


def test_the_daily_schedule_looks_at_10_30_and_each_hour_after(
    repository: dg.RepositoryDefinition,
) -> None:
    daily = repository.get_schedule_def("daily")
    assert daily.cron_schedule == "30 10-23 * * *"
    assert daily.execution_timezone == "UTC"


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GARDENER_CONFIG", str(PRODUCTION))
    monkeypatch.delenv("GARDENER_PROJECT", raising=False)
    with pytest.raises(ValueError, match="GARDENER_PROJECT is not set: expected the Google Cloud"):
        defs()


@pytest.mark.parametrize("webhook", ["", "https://hooks.slack.com/services/x"])
def test_failures_are_told_where_a_web_hook_is_set(
    monkeypatch: pytest.MonkeyPatch, webhook: str
) -> None:
    monkeypatch.setenv("GARDENER_CONFIG", str(PRODUCTION))
    monkeypatch.setenv("GARDENER_PROJECT", "p")
    monkeypatch.setenv("GARDENER_INPUT_LOCATION", "b")
    monkeypatch.setenv("GARDENER_ALERT_WEBHOOK", webhook)
    loaded = defs()
    names = {sensor.name for sensor in loaded.sensors or ()}
    assert ({"run_failures", "check_failures"} <= names) == bool(webhook)


def test_one_op_a_source_makes_its_tables_of_as_many_dates_as_the_config_says(
    production: GardenerConfig, repository: dg.RepositoryDefinition
) -> None:
    graph = repository.asset_graph
    raw, joined = dg.AssetKey(["raw_ndt", "ndt7"]), dg.AssetKey(["ndt", "ndt7"])
    tables = graph.get(raw).assets_def
    assert tables is graph.get(joined).assets_def
    assert tables.op.name == "tables_raw_ndt_ndt7"
    policy = dg.BackfillPolicy.multi_run(production.tables.dates_per_run)
    assert graph.get(raw).backfill_policy == policy
    checks = {key.name for key in tables.check_keys}
    assert {"unique_keys", "archives_parsed", "rows_of_raw", "annotated"} <= checks
    # Dagster works out the states of partitioned checks from all history, at each page.
    assert {spec.partitions_def for spec in tables.check_specs} == {None}


def test_d23_the_historical_pass_is_on_unless_the_config_says_off(
    production: GardenerConfig, repository: dg.RepositoryDefinition
) -> None:
    sensor = repository.get_sensor_def("historical_pass")
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    off = production.history.model_copy(update={"enabled": False})
    stopped = historical_pass_sensor(production.model_copy(update={"history": off}))
    assert stopped.default_status is dg.DefaultSensorStatus.STOPPED


def test_late_archives_are_looked_for_each_half_hour(repository: dg.RepositoryDefinition) -> None:
    sensor = repository.get_sensor_def("late_archives")
    assert sensor.minimum_interval_seconds == 30 * 60 - 1  # as Dagster counts
