"""Where the states of asset checks are kept between pages and between processes, and as what.

They are beside the cursors of Dagster's daemons, each check's by itself. When something happens to
a check is for ``check_states`` to know.
"""

import json
import uuid
from collections.abc import Collection, Mapping, Sequence

import dagster as dg
from dagster import AssetCheckKey
from dagster._core.asset_graph_view.serializable_entity_subset import SerializableEntitySubset
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionResolvedStatus
from dagster._core.storage.asset_check_state import AssetCheckState
from dagster._serdes import deserialize_value, serialize_value

Partitions = dg.PartitionsDefinition[str] | None
Keys = Sequence[tuple[AssetCheckKey, Partitions]]

FOLDER = f"gardener/check_states/{dg.__version__}"
"""Another version of Dagster may write a state in another way, and begins anew."""


class KeptStates:
    """What is kept, as one process sees it; several threads and processes may read and write."""

    def __init__(self) -> None:
        self._read: dict[str, tuple[str, Partitions, AssetCheckState]] = {}  # to read each but once

    def read(
        self, instance: dg.DagsterInstance, folder: str, keys: Keys
    ) -> dict[AssetCheckKey, AssetCheckState]:
        """What is kept there of these checks, but for those whose partitions are others now."""
        names = {_name(folder, key): (key, partitions) for key, partitions in keys}
        found = {}
        for name, text in instance.daemon_cursor_storage.get_cursor_values(set(names)).items():
            key, partitions = names[name]
            known = self._read.get(name)
            if known is None or known[:2] != (text, partitions):
                known = (text, partitions, _state_of(text, key, partitions))
                self._read[name] = known
            subsets = known[2].subsets.values()
            if all(subset.is_compatible_with_partitions_def(partitions) for subset in subsets):
                found[key] = known[2]
        return found


def folder_of(instance: dg.DagsterInstance) -> str:
    """Where states are kept now."""
    since = instance.daemon_cursor_storage.get_cursor_values({FOLDER}).get(FOLDER, "")
    return f"{FOLDER}/{since}"


def forget(instance: dg.DagsterInstance) -> None:
    """Leave all that is kept, after events were deleted: it is kept in another folder from now on.

    Who is still working out a state from what there was before keeps it in the old one.
    """
    instance.daemon_cursor_storage.set_cursor_values({FOLDER: uuid.uuid4().hex})


def keep(
    instance: dg.DagsterInstance,
    folder: str,
    states: Mapping[AssetCheckKey, AssetCheckState],
    *,
    kept: Collection[AssetCheckKey],
) -> None:
    """Keep states; those in ``kept`` are replaced."""
    texts = {key: _text_of(state) for key, state in states.items()}
    for old in (True, False):  # of several values, Dagster adds all or replaces all
        pairs = {_name(folder, key): text for key, text in texts.items() if (key in kept) == old}
        if pairs:
            instance.daemon_cursor_storage.set_cursor_values(pairs)


def _name(folder: str, key: AssetCheckKey) -> str:
    return f"{folder}/{key.to_user_string()}"


def _text_of(state: AssetCheckState) -> str:
    """Dagster's own writer of records cannot do a whole state: it sorts the statuses, in vain."""
    return json.dumps(
        {
            "latest": state.latest_storage_id,
            "subsets": {
                status.value: serialize_value(subset)
                for status, subset in state.subsets.items()
                if not subset.is_empty
            },
        }
    )


def _state_of(text: str, key: AssetCheckKey, partitions: Partitions) -> AssetCheckState:
    read = json.loads(text)
    none = SerializableEntitySubset.empty(key, partitions)
    return AssetCheckState(
        latest_storage_id=read["latest"],
        subsets={
            status: deserialize_value(read["subsets"][status.value], SerializableEntitySubset)
            if status.value in read["subsets"]
            else none
            for status in AssetCheckExecutionResolvedStatus
        },
        in_progress_runs={},
    )
