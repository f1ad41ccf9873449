"""The one module that imports from ``dagster._*``: what Dagster 1.13 has no public way to.

Each import says what it is for. ``tests/gardener_dagster/test_dagster_internals.py`` names what
stops working where a new Dagster has moved one, and an import-linter contract keeps other modules
from importing ``dagster._*``.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property
from typing import Any

import dagster as dg

# Which backfills start runs, and which partitions they target: the sensors must not start what such
# a backfill starts. `DagsterInstance.get_backfills` takes no other filter.
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus, PartitionBackfill

# What a run launcher answers to run monitoring. `DefaultRunLauncher` is public and meant to be
# extended, but `dagster` does not export the types of `check_run_worker_health`.
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
    """What the sensors tell apart of a backfill."""

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
    """A backfill of assets that starts runs, or waits for them."""

    _backfill: PartitionBackfill
    _repository: dg.RepositoryDefinition

    @property
    def id(self) -> str:
        """The value of its runs' tag ``dagster/backfill``."""
        return self._backfill.backfill_id

    @property
    def began(self) -> dt.datetime:
        """When it was asked for."""
        return dt.datetime.fromtimestamp(self._backfill.backfill_timestamp, dt.UTC)

    @property
    def assets(self) -> frozenset[dg.AssetKey]:
        """The assets that it targets."""
        return frozenset(self._backfill.asset_selection or ())

    def partitions(self, key: dg.AssetKey) -> frozenset[str]:
        """Return the partitions of an asset that it targets, made or not."""
        if key not in self._targets.asset_keys:
            return frozenset()
        return frozenset(self._targets.get_partitions_subset(key).get_partition_keys())

    @cached_property
    def _targets(self) -> Any:  # noqa: ANN401 - an AssetGraphSubset, one more import
        return self._backfill.get_asset_backfill_data(self._repository.asset_graph).target_subset


def requested_backfills(
    instance: dg.DagsterInstance, repository: dg.RepositoryDefinition
) -> Sequence[RequestedBackfill]:
    """Return the asset backfills that are neither over nor cancelled, the newest first."""
    return [
        RequestedBackfill(backfill, repository)
        for backfill in instance.get_backfills(
            filters=BulkActionsFilter(statuses=[BulkActionStatus.REQUESTED])
        )
        if backfill.is_asset_backfill
    ]
