"""The priority of a run's process on its machine: backfills leave the processors to daily work."""

import multiprocessing
import os
from collections.abc import Mapping

from gardener_dagster.assets.keys import URGENT_TABLES_TAG, tables_tag

NICENESS = 10
"""What is added to that of the code server. The processes of daily runs, the sidecar and the daemon
get about ten times as much of a busy processor."""


def lower_process_priority(tags: Mapping[str, str]) -> None:
    """Lower the priority of this process, unless the run is urgent.

    Only in a process that the code server started for the run: one that others use is left alone,
    and a pod has its own share of its machine. Where the system has no such priority, do nothing.

    Args:
        tags: The run's.
    """
    is_of_the_run = multiprocessing.parent_process() is not None
    if is_of_the_run and tables_tag(tags) != URGENT_TABLES_TAG and hasattr(os, "nice"):
        os.nice(NICENESS)
