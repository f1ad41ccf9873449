"""A daemon that looks at the asset checks' states, so that no page has to catch up with history.

``check_states`` brings a state up to date whenever somebody looks. The first who looked at a year
of 16 sources that was made meanwhile waited for all of it: 4 s more for the asset graph.
"""

import datetime as dt
from typing import Any

from dagster._core.workspace.context import BaseWorkspaceRequestContext, IWorkspaceProcessContext
from dagster._daemon.daemon import DaemonIterator, IntervalDaemon

INTERVAL = dt.timedelta(minutes=1)
"""In which a backfill makes two hundred partitions; a look at those takes 0.4 CPU-s."""


class CheckDaemon(IntervalDaemon[IWorkspaceProcessContext[BaseWorkspaceRequestContext]]):
    """It has heartbeats as the others have; Dagster's page of daemons shows only its own."""

    def __init__(self) -> None:
        super().__init__(interval_seconds=INTERVAL.total_seconds())

    @classmethod
    def daemon_type(cls) -> str:
        """What Dagster calls it."""
        return "GARDENER_CHECKS"

    def run_iteration(
        self, workspace_process_context: IWorkspaceProcessContext[Any]
    ) -> DaemonIterator:
        """Look at all checks of all code locations."""
        graph = workspace_process_context.create_request_context().asset_graph
        keys = [(key, graph.get(key).partitions_def) for key in graph.asset_check_keys]
        workspace_process_context.instance.event_log_storage.get_asset_check_state(keys)
        yield None
