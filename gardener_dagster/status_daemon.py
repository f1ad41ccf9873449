"""A daemon that looks at what Dagster's pages show of partitions, so that no page has to catch up.

Dagster keeps in which partitions an asset was made, failed or is being made, and ``check_states``
keeps the same of its checks; both are brought up to date whenever somebody looks. The first who
looked at a year of 16 sources that was made meanwhile waited for all of it: 4 to 8 s more for the
asset graph.
"""

import datetime as dt
from threading import Event
from typing import Any

from dagster._core.storage.asset_check_state import AssetCheckState
from dagster._core.storage.partition_status_cache import AssetStatusCacheValue
from dagster._core.workspace.context import BaseWorkspaceRequestContext, IWorkspaceProcessContext
from dagster._daemon.daemon import DaemonIterator, IntervalDaemon

INTERVAL = dt.timedelta(minutes=1)
"""In which a backfill makes three hundred partitions."""


class StatusDaemon(IntervalDaemon[IWorkspaceProcessContext[BaseWorkspaceRequestContext]]):
    """It has heartbeats as the others have; Dagster's page of daemons shows only its own."""

    def __init__(self) -> None:
        super().__init__(interval_seconds=INTERVAL.total_seconds())

    @classmethod
    def daemon_type(cls) -> str:
        """What Dagster calls it."""
        return "GARDENER_STATUS"

    def core_loop(
        self, workspace_process_context: IWorkspaceProcessContext[Any], shutdown_event: Event
    ) -> DaemonIterator:
        """Looks for the first time after an interval: at its start a gardener has other work."""
        shutdown_event.wait(self.interval_seconds)
        yield from super().core_loop(workspace_process_context, shutdown_event)

    def run_iteration(
        self, workspace_process_context: IWorkspaceProcessContext[Any]
    ) -> DaemonIterator:
        """Look at all assets and checks of all code locations."""
        context = workspace_process_context.create_request_context()
        graph = context.asset_graph
        for key in graph.get_all_asset_keys():
            if partitions := graph.get(key).partitions_def:
                AssetStatusCacheValue.blocking_get(context, (key, partitions))
                yield None
        checks = [(key, graph.get(key).partitions_def) for key in graph.asset_check_keys]
        AssetCheckState.blocking_get_many(context, checks)
        yield None
