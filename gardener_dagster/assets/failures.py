"""The error of a run that did many things and failed at some: one message that names them all."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

ADVICE = "What to do: "
FAILURES_NAMED = 10


def raise_failures(
    failures: Sequence[str],
    *,
    count: str,
    kept: str = "",
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Fail the run if anything failed.

    Args:
        failures: One text for each thing that failed: its name, why, and ``What to do: ...``; the
            first is given in full.
        count: How many there are, in words: ``2 jobs``.
        kept: What a re-execution does not do again; empty: to re-execute is no help.
        metadata: For Dagster's page of the failure.

    Raises:
        dg.Failure: The first line names the first failure and what to do; the others follow, up to
            ``FAILURES_NAMED``, without their advice.
    """
    if not failures:
        return
    first, *others = failures
    again = f", then re-execute the run from its failure: {kept}" if kept else ""
    lines = [
        f"{count} failed: {first.rstrip('.')}{again}",
        *(other.partition(ADVICE)[0].rstrip(". ") for other in others[: FAILURES_NAMED - 1]),
    ]
    more = len(failures) - len(lines)
    if more:
        lines.append(f"… and {more} more")
    raise dg.Failure(description="\n".join(lines), metadata=metadata, allow_retries=False)
