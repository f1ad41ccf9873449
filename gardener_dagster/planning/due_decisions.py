"""Which decisions about held partitions have to be carried out: pure, as ``due_tables``."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gardener_api.config import GardenerConfig, Source
from gardener_api.store.publishing.held import HeldPartition
from gardener_dagster.planning.lost_tables import MOST_LOST


@dataclass(frozen=True, kw_only=True)
class DecisionRuns:
    """The runs of Dagster that were started for a decision.

    Attributes:
        count: How many.
        in_progress: Whether one has not ended, or will be retried.
        cancelled: Whether a person cancelled the last one.
    """

    count: int = 0
    in_progress: bool = False
    cancelled: bool = False


@dataclass(frozen=True, kw_only=True)
class DecisionRun:
    """A run that carries out a decision.

    Attributes:
        source: Whose table.
        held: The partition, with the decision.
        earlier: Runs of the same decision that were lost or failed.
    """

    source: Source
    held: HeldPartition
    earlier: int

    @property
    def run_key(self) -> str:
        """Names the decision, and the try."""
        return f"decision~{self.held.number}~{self.earlier}"


def decisions_due(
    config: GardenerConfig,
    decided: Iterable[HeldPartition],
    runs: Mapping[int, DecisionRuns],
) -> Sequence[DecisionRun]:
    """Return the runs to start.

    A decision of a source that is not configured any more is left alone, as one whose run a person
    cancelled, or that too many runs have tried.

    Args:
        config: The sources.
        decided: Held partitions whose decision is not carried out.
        runs: By the number of the held partition.
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
