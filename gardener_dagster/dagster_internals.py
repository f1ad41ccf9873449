"""The one module that imports from ``dagster._*``: what Dagster 1.13 has no public way to.

A comment above each import says what it is for. If a new Dagster release moves a name,
``tests/gardener_dagster/test_dagster_internals.py`` reports what stops working. An import-linter
contract forbids other modules to import ``dagster._*``.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property
from typing import Any

import dagster as dg

# Find the backfills that start runs, and their target partitions: the sensors must not start the
# same runs. `DagsterInstance.get_backfills` accepts only this type of filter.
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus, PartitionBackfill

# Types of a run launcher's reply to run monitoring. `DefaultRunLauncher` is public and meant to be
# extended, but `dagster` does not export the return type of `check_run_worker_health`.
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus

__all__ = [
    "BackfillState",
    "CheckRunHealthResult",
    "RequestedBackfill",
    "WorkerStatus",
    "backfill_state",
    "requested_backfills",
]


class BackfillState(Enum):
    """The states of a backfill that the sensors distinguish."""

    REQUESTED = auto()  # it starts runs, or waits for them
    CANCELLED = auto()  # a person cancelled it; its last runs may still be ending
    OVER = auto()  # it ended, or was deleted


def backfill_state(instance: dg.DagsterInstance, backfill_id: str) -> BackfillState:
    """Return the state of a backfill."""
    backfill = instance.get_backfill(backfill_id)
    if backfill is None:
        return BackfillState.OVER
    if backfill.status is BulkActionStatus.REQUESTED:
        return BackfillState.REQUESTED
    if backfill.status in (BulkActionStatus.CANCELING, BulkActionStatus.CANCELED):
        return BackfillState.CANCELLED
    return BackfillState.OVER


@dataclass(frozen=True)
class RequestedBackfill:
    """An asset backfill that starts runs, or waits for them."""

    _backfill: PartitionBackfill
    _repository: dg.RepositoryDefinition

    @property
    def id(self) -> str:
        """The value of its runs' tag ``dagster/backfill``."""
        return self._backfill.backfill_id

    @property
    def began(self) -> dt.datetime:
        """When it was requested."""
        return dt.datetime.fromtimestamp(self._backfill.backfill_timestamp, dt.UTC)

    @property
    def assets(self) -> frozenset[dg.AssetKey]:
        """The assets that it targets."""
        return frozenset(self._backfill.asset_selection or ())

    def partitions(self, key: dg.AssetKey) -> frozenset[str]:
        """Return the backfill's target partitions of an asset, including those already made."""
        if key not in self._targets.asset_keys:
            return frozenset()
        return frozenset(self._targets.get_partitions_subset(key).get_partition_keys())

    @cached_property
    def _targets(self) -> Any:  # noqa: ANN401 - importing AssetGraphSubset is avoided
        return self._backfill.get_asset_backfill_data(self._repository.asset_graph).target_subset


def requested_backfills(
    instance: dg.DagsterInstance, repository: dg.RepositoryDefinition
) -> Sequence[RequestedBackfill]:
    """Return the asset backfills with the status ``REQUESTED``, the newest first."""
    return [
        RequestedBackfill(backfill, repository)
        for backfill in instance.get_backfills(
            filters=BulkActionsFilter(statuses=[BulkActionStatus.REQUESTED])
        )
        if backfill.is_asset_backfill
    ]
