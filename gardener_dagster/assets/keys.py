"""What the assets of a source are called, and what a run's tags mean. No computation.

Tags are the one way runs, backfills and sensors tell each other whose work a run is.
"""

from collections.abc import Iterable, Mapping

import dagster as dg

from gardener_api.config import Source
from gardener_api.jobs.job import Priority
from gardener_dagster.warehouse.names import SourceTables

PARSED = "parsed"
"""What the keys of the parsers' objects begin with."""

JOB_TAG = "gardener/job"
"""On a run of tables: the ID of the job, with its attempt, whose rows it loads."""

PRIORITY_TAG = "gardener/priority"
"""On a run of ``parse``: ``daily`` or ``historical``; without it, a person asked."""

MAY_EMPTY_TAG = "gardener/may_empty"
"""On a run of tables: ``true`` lets a partition that has rows be replaced by none."""

ACCEPT_TAG = "gardener/accept"
"""On a run of tables: audits, separated by commas, that do not hold its partitions; ``true``: none
does."""

DECISION_TAG = "gardener/decision"
"""On a run that carries out a person's decision about a held partition: its number."""

HISTORY_TAG = "gardener/history"
"""On a run of the historical pass: which part of which pass it is."""

PARSE_TAG = "gardener/parse"
"""On each run that waits for parsers: for whom it asks. The run queue has a limit for each."""

URGENT_TABLES_TAG = "gardener/urgent_tables"
"""On each run that makes tables and that must not wait for backfills: the experiment. The run queue
keeps places for them."""

TABLES_TAG = "gardener/tables"
"""On each other run that makes tables: the experiment. The run queue has a limit for each."""

BACKFILL_TAG = "dagster/backfill"
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"
QUEUE_TAG = "dagster/priority"
"""A number; of the runs that wait in the queue, the one with the largest comes first."""

QUEUE_ORDER: Mapping[Priority, str] = {
    Priority.DAILY: "10",
    Priority.BACKFILL: "0",
    Priority.HISTORICAL: "-10",
}
PARENT_RUN_TAG = "dagster/parent_run_id"
ROOT_RUN_TAG = "dagster/root_run_id"
RETRY_TAG = "dagster/retry_number"
"""On a run that Dagster itself started since another was lost; a person's re-execution has none."""
_RESUMES = ("dagster/is_resume_retry", "dagster/is_asset_resume_retry", RETRY_TAG)


def parsed_key(source: Source) -> dg.AssetKey:
    """``parsed/<experiment>/<datatype>``: the parser's objects in Cloud Storage."""
    return dg.AssetKey([PARSED, source.experiment, source.datatype])


def tmp_key(source: Source) -> dg.AssetKey:
    """``<tmp dataset>/<datatype>``."""
    return dg.AssetKey([source.target_datasets.tmp, source.datatype])


def raw_key(source: Source) -> dg.AssetKey:
    """``<raw dataset>/<datatype>``."""
    return dg.AssetKey([source.target_datasets.raw, source.datatype])


def joined_key(source: Source) -> dg.AssetKey | None:
    """``<join dataset>/<datatype>``; ``None`` where nothing is joined."""
    join = source.target_datasets.join
    return dg.AssetKey([join, source.datatype]) if join else None


def table_keys(source: Source) -> list[dg.AssetKey]:
    """The tables of a source, in the order they are made."""
    joined = joined_key(source)
    return [tmp_key(source), raw_key(source), *([joined] if joined else [])]


def source_tables(source: Source) -> SourceTables:
    """The source as the warehouse sees it."""
    return SourceTables(
        experiment=source.experiment,
        datatype=source.datatype,
        tmp=source.target_datasets.tmp,
        raw=source.target_datasets.raw,
        joined=source.target_datasets.join or "",
        annotations=source.annotations,
    )


def tables_tag(tags: Mapping[str, str]) -> str:
    """The tag of a run that makes tables, by its other tags.

    Daily runs are urgent, and so is a run that a person launches: one without ``dagster/priority``
    that belongs to no backfill. A re-execution keeps the tag of its parent.
    """
    if TABLES_TAG in tags:
        return TABLES_TAG
    order = tags.get(QUEUE_TAG)
    is_launched_by_hand = order is None and BACKFILL_TAG not in tags
    is_urgent = is_launched_by_hand or order == QUEUE_ORDER[Priority.DAILY]
    return URGENT_TABLES_TAG if is_urgent else TABLES_TAG


def priority_of(tags: Mapping[str, str]) -> Priority:
    """How urgent a run's jobs are."""
    match tags.get(PRIORITY_TAG):
        case "daily":
            return Priority.DAILY
        case "historical":
            return Priority.HISTORICAL
        case _:
            return Priority.BACKFILL


def accepted_audits(tags: Mapping[str, str], *, known: Iterable[str]) -> frozenset[str]:
    """Return the audits that a run's tags accept: they hold nothing in it.

    Raises:
        ValueError: The tag names an audit that there is not.
    """
    text = tags.get(ACCEPT_TAG, "").strip()
    names = frozenset(known)
    if text.lower() == "true":
        return names
    named = frozenset(part.strip() for part in text.split(",") if part.strip())
    if named - names:
        raise ValueError(
            f"the tag {ACCEPT_TAG}: {text!r}: expected true, or some of {', '.join(sorted(names))}"
        )
    return named


def decision_of(tags: Mapping[str, str]) -> int | None:
    """The number of the held partition whose decision a run carries out; ``None``: it does not.

    Raises:
        ValueError: The tag is no number.
    """
    text = tags.get(DECISION_TAG)
    if text is not None and not text.isdecimal():
        raise ValueError(f"the tag {DECISION_TAG}: {text!r}: expected a number")
    return int(text) if text is not None else None


def may_empty(tags: Mapping[str, str]) -> bool:
    """Whether a run was told that a partition may lose all its rows."""
    return tags.get(MAY_EMPTY_TAG) == "true"


def resumes(tags: Mapping[str, str]) -> bool:
    """Whether a run continues what its root run began: a retry, or re-executed from failure."""
    return any(tag in tags for tag in _RESUMES)


def root_run_of(run_id: str, tags: Mapping[str, str]) -> str:
    """The run whose work this run continues; itself where it does not resume another."""
    return tags.get(ROOT_RUN_TAG, run_id) if resumes(tags) else run_id


def requester_of(run_id: str, tags: Mapping[str, str]) -> str:
    """Who asks: the same for all runs that share one parse of a date and its tables.

    A backfill is one requester. A run that resumes another is the run it began as. A run that a
    person re-executes as a whole asks anew.
    """
    anew = PARENT_RUN_TAG in tags and not resumes(tags)
    if BACKFILL_TAG in tags and not anew:
        return f"backfill/{tags[BACKFILL_TAG]}"
    return f"run/{root_run_of(run_id, tags)}"
