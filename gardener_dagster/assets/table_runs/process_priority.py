"""The priority of a run's process on its machine: backfills leave the processors to daily work."""

import multiprocessing
import os
from collections.abc import Mapping

from gardener_dagster.assets.keys import URGENT_TABLES_TAG, tables_tag

NICENESS = 10
"""Added to the niceness of the code server. On a busy processor, a process of a daily run, the
sidecar or the daemon gets about ten times as much time as one of a backfill."""


def lower_process_priority(tags: Mapping[str, str]) -> None:
    """Lower the priority of this process, unless the run is urgent.

    Do nothing if the code server did not start this process for the run (it may be shared, or have
    a pod and so a CPU share of its own), or if the system has no niceness.

    Args:
        tags: The run's tags.
    """
    is_of_the_run = multiprocessing.parent_process() is not None
    if is_of_the_run and tables_tag(tags) != URGENT_TABLES_TAG and hasattr(os, "nice"):
        os.nice(NICENESS)
