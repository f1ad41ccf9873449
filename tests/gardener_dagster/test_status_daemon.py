"""What a look of the daemon leaves for the pages."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
from dagster._core.loader import LoadingContextForTest
from dagster_instance import instance_in

from gardener_dagster.kept_states import KeptStates, folder_of
from gardener_dagster.status_daemon import StatusDaemon

DATE = "2024-03-01"
DAYS = dg.DailyPartitionsDefinition(DATE)

with warnings.catch_warnings():
    warnings.simplefilter("ignore", dg.PreviewWarning)  # checks with partitions, as ours

    @dg.asset(
        partitions_def=DAYS,
        check_specs=[dg.AssetCheckSpec("whole", asset="table", partitions_def=DAYS)],
    )
    def table() -> Iterator[dg.MaterializeResult[None]]:
        """An asset with a check of each date."""
        yield dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=True)])


@dg.asset
def report() -> None:
    """An asset without partitions."""


class Context(LoadingContextForTest):
    """A request's, as far as a look needs it."""

    asset_graph = dg.Definitions(assets=[table, report]).resolve_asset_graph()


def test_dates_of_assets_and_checks_are_kept(tmp_path: Path) -> None:
    with instance_in(tmp_path) as instance:
        dg.materialize([table], instance=instance, partition_key=DATE)
        dg.materialize([report], instance=instance)
        process: Any = SimpleNamespace(create_request_context=lambda: Context(instance))

        assert set(StatusDaemon().run_iteration(process)) == {None}  # no error

        [record] = instance.get_asset_records([table.key])
        status = record.asset_entry.cached_status
        assert status is not None
        made = status.deserialize_materialized_partition_subsets(DAYS)
        assert list(made.get_partition_keys()) == [DATE]

        [key] = table.check_keys
        kept = KeptStates().read(instance, folder_of(instance), [(key, DAYS)])[key]
        assert {
            of.value: list(subset.subset_value.get_partition_keys())
            for of, subset in kept.subsets.items()
            if not subset.is_empty
        } == {"SUCCEEDED": [DATE]}
