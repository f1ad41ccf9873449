"""Dagster's run queue, which tells by a run's tags what it does, so that limits can be for that.

The limits are in ``dagster.yaml``. Dagster can limit runs by their tags, but a run that is launched
in the UI, or by a backfill, has none that say whether it waits for parsers or makes tables; pools
can tell, but know one limit for all of them and nothing of who asks.
"""

from collections.abc import Mapping

from dagster import AssetKey, DagsterRun
from dagster._core.errors import (
    DagsterCodeLocationNotFoundError,
    DagsterUserCodeUnreachableError,
)
from dagster._core.launcher import DefaultRunLauncher, LaunchRunContext
from dagster._core.run_coordinator import QueuedRunCoordinator, SubmitRunContext

from gardener_api.jobs import Priority
from gardener_dagster.graph import PARSE_TAG, PARSED, TABLES_TAG, priority_of

NICENESS = {Priority.DAILY: 0, Priority.BACKFILL: 10, Priority.HISTORICAL: 15}
"""Of the processes of runs. At 10 one gets a tenth of what one at 0 gets, where both want all."""


class GardenerRunQueue(QueuedRunCoordinator):
    """The usual queue; it tags what comes in."""

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Tags the run and queues it."""
        run = context.dagster_run
        graph = context.workspace.asset_graph
        chosen = run.asset_selection  # None: all
        keys = graph.materializable_asset_keys if chosen is None else chosen
        groups = {key: graph.get(key).group_name for key in keys if graph.has(key)}
        self._instance.add_run_tags(run.run_id, limit_tags(run.tags, groups))
        return super().submit_run(context)


class GardenerRunLauncher(DefaultRunLauncher):
    """The usual launcher; what it cannot launch because Dagster is being stopped is launched later.

    A daemon that is told to end lets go of the code location first, and its threads go on with the
    runs that they have taken out of the queue. They would mark these as failed, and only what
    cannot be reached goes back into the queue.
    """

    def launch_run(self, context: LaunchRunContext) -> None:
        """Launches the run.

        Raises:
            DagsterUserCodeUnreachableError: There is nobody to do it now.
        """
        try:
            super().launch_run(context)
        except DagsterCodeLocationNotFoundError as error:
            raise DagsterUserCodeUnreachableError(f"cannot launch a run now: {error}") from error


def limit_tags(tags: Mapping[str, str], groups: Mapping[AssetKey, str]) -> dict[str, str]:
    """The tags that the limits are for.

    Args:
        tags: Those that the run has.
        groups: The group, an experiment, of each asset that it makes.
    """
    found = {}
    if any(key.path[0] == PARSED for key in groups):
        found[PARSE_TAG] = priority_of(tags).name.lower()
    tables = {group for key, group in groups.items() if key.path[0] != PARSED}
    if tables:
        found[TABLES_TAG] = "+".join(sorted(tables))
    return found
