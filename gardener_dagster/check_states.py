"""In which partitions each asset check passed, failed or goes on, as Dagster's pages ask for it.

What these states mean is Dagster's. But it works them out anew for each page with assets, from all
of history and one partition after the other: with a year of 16 sources the asset graph took 7 s.
Here a check's state is kept until something happens to it, and partitions are taken by status.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import dagster as dg
from dagster import AssetCheckKey, DagsterRunStatus, RunsFilter
from dagster._core.asset_graph_view.serializable_entity_subset import SerializableEntitySubset
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecordStatus,
    AssetCheckExecutionResolvedStatus,
    AssetCheckPartitionInfo,
)
from dagster._core.storage.asset_check_state import AssetCheckState
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.event_log import SqlEventLogStorage

Partitions = dg.PartitionsDefinition[str] | None
Keys = Sequence[tuple[AssetCheckKey, Partitions]]

_EVALUATED = {
    AssetCheckExecutionRecordStatus.SUCCEEDED: AssetCheckExecutionResolvedStatus.SUCCEEDED,
    AssetCheckExecutionRecordStatus.FAILED: AssetCheckExecutionResolvedStatus.FAILED,
}


class _Known(NamedTuple):
    """A state, and the newest event of all when it was worked out."""

    newest: int
    state: AssetCheckState


class CheckStates:
    """The states of a process; several threads may ask."""

    def __init__(self, storage: SqlEventLogStorage) -> None:
        self._storage = storage
        self._known: dict[AssetCheckKey, _Known] = {}

    def of(
        self, keys: Keys, instance: dg.DagsterInstance
    ) -> Mapping[AssetCheckKey, AssetCheckState]:
        """The state of each check.

        One whose run goes on is worked out each time: the run's end is no event of the check.
        """
        newest = self._storage.get_maximum_record_id() or 0
        known = {
            key: found
            for key, partitions in keys
            if (found := self._known.get(key)) and found.state.compatible_with(partitions)
        }
        for key in self._changed(known, newest):
            del known[key]
        states = {key: found.state for key, found in known.items()}
        states |= self._work_out([item for item in keys if item[0] not in known], instance)
        for key, state in states.items():
            self._known.pop(key, None)
            if not state.in_progress_runs:
                self._known[key] = _Known(newest, state)
        return states

    def forget(self) -> None:
        """Events were deleted, which leaves no trace."""
        self._known.clear()

    def _changed(self, known: Mapping[AssetCheckKey, _Known], newest: int) -> set[AssetCheckKey]:
        since = min((found.newest for found in known.values()), default=newest)
        if since == newest:
            return set()
        infos = self._storage.get_asset_check_partition_info(list(known), after_storage_id=since)
        return {info.check_key for info in infos}

    def _work_out(
        self, keys: Keys, instance: dg.DagsterInstance
    ) -> dict[AssetCheckKey, AssetCheckState]:
        if not keys:
            return {}
        infos: dict[AssetCheckKey, list[AssetCheckPartitionInfo]] = defaultdict(list)
        for info in self._storage.get_asset_check_partition_info([key for key, _ in keys]):
            infos[info.check_key].append(info)
        ended = _ended_runs(instance, [info for some in infos.values() for info in some])
        valid = {
            partitions: {None} if partitions is None else set(partitions.get_partition_keys())
            for partitions in {partitions for _, partitions in keys}
        }
        return {
            key: _state(
                key,
                partitions,
                [info for info in infos[key] if info.partition_key in valid[partitions]],
                ended,
            )
            for key, partitions in keys
        }


def _ended_runs(
    instance: dg.DagsterInstance, infos: Iterable[AssetCheckPartitionInfo]
) -> dict[str, DagsterRunStatus]:
    ids = {info.latest_planned_run_id for info in infos if not _is_evaluated(info)}
    if not ids:
        return {}
    runs = instance.get_runs(RunsFilter(run_ids=list(ids), statuses=list(FINISHED_STATUSES)))
    return {run.run_id: run.status for run in runs}


def _is_evaluated(info: AssetCheckPartitionInfo) -> bool:
    return info.latest_execution_status in _EVALUATED


def _state(
    key: AssetCheckKey,
    partitions: Partitions,
    infos: Sequence[AssetCheckPartitionInfo],
    ended: Mapping[str, DagsterRunStatus],
) -> AssetCheckState:
    """All partitions of a status at once; those only planned, which are few, as Dagster does."""
    found: dict[AssetCheckExecutionResolvedStatus, list[str | None]] = defaultdict(list)
    for info in infos:
        if _is_evaluated(info) and info.is_current:
            found[_EVALUATED[info.latest_execution_status]].append(info.partition_key)
    evaluated = AssetCheckState(
        latest_storage_id=max((info.latest_check_event_storage_id for info in infos), default=0),
        subsets={
            status: SerializableEntitySubset.from_coercible_value(
                key, None if partitions is None else [name for name in names if name], partitions
            )
            for status, names in found.items()
        },
        in_progress_runs={},
    )
    planned = [info for info in infos if not _is_evaluated(info)]
    return evaluated.with_updates(key, partitions, planned, ended)
