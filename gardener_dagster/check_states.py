"""In which partitions each asset check passed, failed or goes on, as Dagster's pages ask for it.

What these states mean is Dagster's. But it works them out anew for each page with assets, from all
of history: with a year of 16 sources the asset graph took 7 s, and each year more. Here a check's
state is kept (``kept_states``), and brought up to date by the partitions in which something has
happened since.
"""

import datetime as dt
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

import dagster as dg
from dagster import AssetCheckKey, AssetKey, DagsterEventType, DagsterRunStatus, RunsFilter
from dagster._core.asset_graph_view.serializable_entity_subset import SerializableEntitySubset
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecordStatus,
    AssetCheckExecutionResolvedStatus,
    AssetCheckPartitionInfo,
)
from dagster._core.storage.asset_check_state import AssetCheckState
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable as Executions
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable as Events
from dagster_shared.record import copy
from sqlalchemy import select

from gardener_dagster.kept_states import KeptStates, Keys, Partitions, folder_of, keep

SETTLED = dt.timedelta(seconds=10)
"""An event may be older than what is written because of it, but not by more."""

MANY = 500
"""Partitions; from so many on it is quicker to take all, and SQLite bounds what one can ask for."""

FAR_BEHIND = 1_000
"""Events of others; after so many a state is kept anew though nothing happened to it."""

_CHECKED = [
    DagsterEventType.ASSET_CHECK_EVALUATION.value,
    DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED.value,
]
_EVALUATED = {
    AssetCheckExecutionRecordStatus.SUCCEEDED: AssetCheckExecutionResolvedStatus.SUCCEEDED,
    AssetCheckExecutionRecordStatus.FAILED: AssetCheckExecutionResolvedStatus.FAILED,
}


class CheckStates:
    """The states; several threads and processes may ask.

    A kept state's ``latest_storage_id`` is the event that it was up to date with.
    """

    def __init__(self, storage: SqlEventLogStorage) -> None:
        self._storage = storage
        self._kept = KeptStates()

    def of(
        self, keys: Keys, instance: dg.DagsterInstance, *, now: dt.datetime
    ) -> Mapping[AssetCheckKey, AssetCheckState]:
        """The state of each check."""
        settled = self._settled(now)
        folder = folder_of(instance)
        kept = self._kept.read(instance, folder, keys)
        changed = self._changed(kept)
        whole = [(key, of) for key, of in keys if key not in kept or _is_whole(of, changed[key])]
        states = self._work_out(whole, instance)
        states |= self._bring_up_to_date(
            [(key, of, kept[key]) for key, of in keys if key not in states], changed, instance
        )
        states = {key: copy(state, latest_storage_id=settled) for key, state in states.items()}
        oldest = min((state.latest_storage_id for state in kept.values()), default=0)
        if any(changed.values()) or len(kept) < len(keys) or settled - oldest > FAR_BEHIND:
            # All, that those who ask for the same ones again are told of nothing twice.
            keep(instance, folder, states, kept=kept)
        return states

    def _settled(self, now: dt.datetime) -> int:
        """The newest event because of which nothing is still to be written."""
        before = (now - SETTLED).astimezone(dt.UTC).replace(tzinfo=None)  # as Dagster stores it
        newest = select(Events.c.id).where(Events.c.timestamp < before).order_by(Events.c.id.desc())
        with self._storage.index_connection() as connection:
            return connection.execute(newest.limit(1)).scalar() or 0

    def _changed(
        self, states: Mapping[AssetCheckKey, AssetCheckState]
    ) -> Mapping[AssetCheckKey, set[str | None]]:
        """In which partitions of each check something has happened, or goes on."""
        changed: dict[AssetCheckKey, set[str | None]] = defaultdict(set)
        if not states:
            return changed
        since = min(state.latest_storage_id for state in states.values())
        assets = {key.asset_key.to_string(): key.asset_key for key in states}
        runs = select(Events.c.run_id).where(
            Events.c.dagster_event_type.in_(_CHECKED), Events.c.id > since
        )
        checked = select(
            Executions.c.asset_key, Executions.c.check_name, Executions.c.partition
        ).where(
            Executions.c.asset_key.in_(assets),
            Executions.c.check_name.in_({key.name for key in states}),
            Executions.c.run_id.in_(runs),
        )
        made = select(Events.c.asset_key, Events.c.partition).where(
            Events.c.dagster_event_type == DagsterEventType.ASSET_MATERIALIZATION.value,
            Events.c.id > since,
        )
        with self._storage.index_connection() as connection:
            for asset, name, partition in connection.execute(checked):
                changed[AssetCheckKey(assets[asset], name)].add(partition)
            of_asset: dict[AssetKey, set[str | None]] = defaultdict(set)
            for asset, partition in connection.execute(made):
                if asset in assets:
                    of_asset[assets[asset]].add(partition)
        for key, state in states.items():
            changed[key] |= of_asset[key.asset_key]
            for going_on in state.in_progress_runs.values():  # a run's end is no event of the check
                changed[key] |= _partitions_of(going_on)
        return changed

    def _bring_up_to_date(
        self,
        kept: Sequence[tuple[AssetCheckKey, Partitions, AssetCheckState]],
        changed: Mapping[AssetCheckKey, set[str | None]],
        instance: dg.DagsterInstance,
    ) -> dict[AssetCheckKey, AssetCheckState]:
        together: dict[frozenset[str], list[AssetCheckKey]] = defaultdict(list)
        for key, _, _ in kept:
            together[frozenset(name for name in changed[key] if name)].append(key)
        infos = [
            info
            for names, keys in together.items()
            if names
            for info in self._storage.get_asset_check_partition_info(
                keys, partition_keys=list(names)
            )
        ]
        ended, of = _ended_runs(instance, infos), _by_check(infos)
        return {
            key: (
                _without(state, key, partitions, changed[key]).with_updates(
                    key, partitions, of[key], ended
                )
                if changed[key]
                else state
            )
            for key, partitions, state in kept
        }

    def _work_out(
        self, keys: Keys, instance: dg.DagsterInstance
    ) -> dict[AssetCheckKey, AssetCheckState]:
        """From all of history."""
        if not keys:
            return {}
        infos = self._storage.get_asset_check_partition_info([key for key, _ in keys])
        ended, of = _ended_runs(instance, infos), _by_check(infos)
        valid = {
            partitions: {None} if partitions is None else set(partitions.get_partition_keys())
            for partitions in {partitions for _, partitions in keys}
        }
        return {
            key: _state(
                key,
                partitions,
                [info for info in of[key] if info.partition_key in valid[partitions]],
                ended,
            )
            for key, partitions in keys
        }


def _is_whole(partitions: Partitions, changed: Collection[str | None]) -> bool:
    """Whether what has changed is all of it, or as good as all."""
    return bool(changed) and (partitions is None or None in changed or len(changed) > MANY)


def _partitions_of(subset: SerializableEntitySubset[AssetCheckKey]) -> set[str | None]:
    return set(subset.subset_value.get_partition_keys()) if subset.is_partitioned else {None}


def _by_check(
    infos: Iterable[AssetCheckPartitionInfo],
) -> Mapping[AssetCheckKey, list[AssetCheckPartitionInfo]]:
    found: dict[AssetCheckKey, list[AssetCheckPartitionInfo]] = defaultdict(list)
    for info in infos:
        found[info.check_key].append(info)
    return found


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


def _without(
    state: AssetCheckState,
    key: AssetCheckKey,
    partitions: Partitions,
    changed: Collection[str | None],
) -> AssetCheckState:
    """What stays as it is; a run that goes on is in partitions that do not."""
    names = [name for name in changed if name and partitions and partitions.has_partition_key(name)]
    gone = SerializableEntitySubset.from_coercible_value(key, names, partitions)
    subsets = {of: subset.compute_difference(gone) for of, subset in state.subsets.items()}
    return copy(state, subsets=subsets, in_progress_runs={})


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
        latest_storage_id=0,
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
