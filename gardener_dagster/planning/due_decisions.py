"""Which decisions about held partitions have to be carried out: pure, as ``due_tables``."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gardener_api.config import GardenerConfig, Source
from gardener_api.store.publishing.held import HeldPartition
from gardener_dagster.planning.lost_tables import MOST_LOST


@dataclass(frozen=True, kw_only=True)
class DecisionRuns:
    """The Dagster runs that were started for a decision.

    Attributes:
        count: Number of runs.
        in_progress: Whether a run has not ended, or will be retried.
        cancelled: Whether a person cancelled the last run.
    """

    count: int = 0
    in_progress: bool = False
    cancelled: bool = False


@dataclass(frozen=True, kw_only=True)
class DecisionRun:
    """A run that carries out a decision.

    Attributes:
        source: The source of the held table.
        held: The held partition, with the decision.
        earlier: Number of earlier runs of the same decision.
    """

    source: Source
    held: HeldPartition
    earlier: int

    @property
    def run_key(self) -> str:
        """Idempotency key: the decision and the number of earlier runs."""
        return f"decision~{self.held.number}~{self.earlier}"


def decisions_due(
    config: GardenerConfig,
    decided: Iterable[HeldPartition],
    runs: Mapping[int, DecisionRuns],
) -> Sequence[DecisionRun]:
    """Return the runs to start.

    Skips decisions of sources that are no longer configured, those whose last run a person
    cancelled, and those with ``MOST_LOST`` earlier runs.

    Args:
        config: The configuration.
        decided: Held partitions whose decision is not carried out yet.
        runs: Runs of each decision, by the number of the held partition.
    """
    sources = {
        table: source
        for source in config.sources
        for table in (source.raw_table, source.joined_table)
        if table
    }
    due = []
    for held in decided:
        earlier = runs.get(held.number, DecisionRuns())
        if held.table not in sources or earlier.in_progress or earlier.cancelled:
            continue
        if earlier.count < MOST_LOST:
            due.append(DecisionRun(source=sources[held.table], held=held, earlier=earlier.count))
    return due
