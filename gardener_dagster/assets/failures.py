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
        failures: One text per failure: what failed, why, and ``What to do: ...``; the first is
            shown in full.
        count: Number and kind of the failures, for example ``2 jobs``.
        kept: What a re-execution does not repeat; empty: a re-execution does not help.
        metadata: Metadata that Dagster shows with the failure.

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
