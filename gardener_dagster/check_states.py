"""In which partitions each asset check passed, failed or goes on, as Dagster's pages ask for it.

What these states mean is Dagster's. But it works them out anew for each page with assets, from all
of history: with a year of 16 sources the asset graph took 7 s, and each year more. Here a check's
state is kept (``kept_states``), and brought up to date by the partitions in which something has
happened since.
"""

import datetime as dt
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

import dagster as dg
from dagster import AssetCheckKey, AssetKey, DagsterEventType, DagsterRunStatus, RunsFilter
from dagster._core.asset_graph_view.serializable_entity_subset import SerializableEntitySubset
from dagster._core.events import EVENT_TYPE_TO_PIPELINE_RUN_STATUS
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecordStatus,
    AssetCheckExecutionResolvedStatus,
    AssetCheckPartitionInfo,
)
from dagster._core.storage.asset_check_state import AssetCheckState, StatusSubsets
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable as Executions
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable as Events
from sqlalchemy import select

from gardener_dagster.kept_states import KeptStates, Keys, Partitions, folder_of, keep

SETTLED = dt.timedelta(seconds=10)
"""An event may be older than what is written because of it, but not by more."""

MANY = 500
"""Partitions; from so many on it is quicker to take all, and SQLite bounds what one can ask for."""

FAR_BEHIND = 1_000
"""Events of others; after so many a state is kept anew though nothing happened to it."""

_OF_CHECKS = [
    DagsterEventType.ASSET_CHECK_EVALUATION.value,
    DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED.value,
    # What was planned and is not done then, is not going on any more.
    *(e.value for e, of in EVENT_TYPE_TO_PIPELINE_RUN_STATUS.items() if of in FINISHED_STATUSES),
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
        subsets = self._work_out(whole, instance)
        rest = [(key, of) for key, of in keys if key not in subsets]
        subsets |= self._bring_up_to_date(rest, kept, changed, instance)
        # Which run goes on where, Dagster notes for itself alone.
        states = {
            key: AssetCheckState(latest_storage_id=settled, subsets=of, in_progress_runs={})
            for key, of in subsets.items()
        }
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
        """In which partitions of each check something has happened."""
        changed: dict[AssetCheckKey, set[str | None]] = defaultdict(set)
        if not states:
            return changed
        since = min(state.latest_storage_id for state in states.values())
        assets = {key.asset_key.to_string(): key.asset_key for key in states}
        runs = select(Events.c.run_id).where(
            Events.c.dagster_event_type.in_(_OF_CHECKS), Events.c.id > since
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
        for key in states:
            changed[key] |= of_asset[key.asset_key]
        return changed

    def _bring_up_to_date(
        self,
        keys: Keys,
        kept: Mapping[AssetCheckKey, AssetCheckState],
        changed: Mapping[AssetCheckKey, set[str | None]],
        instance: dg.DagsterInstance,
    ) -> dict[AssetCheckKey, StatusSubsets]:
        together: dict[frozenset[str], list[AssetCheckKey]] = defaultdict(list)
        for key, _ in keys:
            together[frozenset(name for name in changed[key] if name)].append(key)
        infos = [
            info
            for names, of in together.items()
            if names
            for info in self._storage.get_asset_check_partition_info(of, partition_keys=list(names))
        ]
        ended, infos_of = _ended_runs(instance, infos), _by_check(infos)
        valid = _valid(of for key, of in keys if changed[key])
        found = {}
        for key, partitions in keys:
            subsets = kept[key].subsets
            if changed[key]:
                names = changed[key] & valid[partitions]
                gone = _subset(key, names, partitions)
                new = _subsets(key, infos_of[key], names, partitions, ended)
                subsets = {
                    status: subset.compute_difference(gone).compute_union(new[status])
                    for status, subset in subsets.items()
                }
            found[key] = subsets
        return found

    def _work_out(
        self, keys: Keys, instance: dg.DagsterInstance
    ) -> dict[AssetCheckKey, StatusSubsets]:
        """From all of history."""
        if not keys:
            return {}
        infos = self._storage.get_asset_check_partition_info([key for key, _ in keys])
        ended, infos_of = _ended_runs(instance, infos), _by_check(infos)
        valid = _valid(of for _, of in keys)
        return {
            key: _subsets(key, infos_of[key], valid[partitions], partitions, ended)
            for key, partitions in keys
        }


def _is_whole(partitions: Partitions, changed: Collection[str | None]) -> bool:
    """Whether what has changed is all of it, or as good as all."""
    return bool(changed) and (partitions is None or None in changed or len(changed) > MANY)


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


def _valid(definitions: Iterable[Partitions]) -> Mapping[Partitions, set[str | None]]:
    """Their partitions; to ask for each whether it is one takes a tenth of a millisecond."""
    return {
        partitions: {None} if partitions is None else set(partitions.get_partition_keys())
        for partitions in set(definitions)
    }


def _subsets(
    key: AssetCheckKey,
    infos: Iterable[AssetCheckPartitionInfo],
    valid: Collection[str | None],
    partitions: Partitions,
    ended: Mapping[str, DagsterRunStatus],
) -> StatusSubsets:
    """All partitions of a status at once: Dagster adds one by one, half a millisecond each."""
    found: dict[AssetCheckExecutionResolvedStatus | None, list[str | None]] = defaultdict(list)
    for info in infos:
        if info.partition_key in valid:
            found[_status(info, ended)].append(info.partition_key)
    return {
        status: _subset(key, found[status], partitions)
        for status in AssetCheckExecutionResolvedStatus
    }


def _status(
    info: AssetCheckPartitionInfo, ended: Mapping[str, DagsterRunStatus]
) -> AssetCheckExecutionResolvedStatus | None:
    """None: what was checked has been made anew since."""
    if _is_evaluated(info):
        return _EVALUATED[info.latest_execution_status] if info.is_current else None
    status = ended.get(info.latest_planned_run_id)
    if status is None:
        return AssetCheckExecutionResolvedStatus.IN_PROGRESS
    if status is DagsterRunStatus.FAILURE:
        return AssetCheckExecutionResolvedStatus.EXECUTION_FAILED
    return AssetCheckExecutionResolvedStatus.SKIPPED


def _subset(
    key: AssetCheckKey, names: Collection[str | None], partitions: Partitions
) -> SerializableEntitySubset[AssetCheckKey]:
    if partitions is None:
        return SerializableEntitySubset(key, bool(names))
    named = [name for name in names if name]
    return SerializableEntitySubset.from_coercible_value(key, named, partitions)
