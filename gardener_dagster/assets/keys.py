"""What the assets of a source are called, and what a run's tags mean. No computation.

Only a run's tags tell other runs, backfills and sensors who requested it and with what options.
"""

from collections.abc import Iterable, Mapping

import dagster as dg

from gardener_api.config import Source
from gardener_api.jobs.job import Priority
from gardener_dagster.warehouse.names import SourceTables

PARSED = "parsed"
"""First part of the keys of the assets that stand for the parsers' objects."""

JOB_TAG = "gardener/job"
"""On a run of tables: the ID of its job; of several, ``<ID of the first job>..<last date>``."""

PRIORITY_TAG = "gardener/priority"
"""On a run of ``parse``: ``daily`` or ``historical``; absent: a person requested the run."""

MAY_EMPTY_TAG = "gardener/may_empty"
"""On a run of tables: ``true`` allows it to replace a partition with rows by an empty one."""

ACCEPT_TAG = "gardener/accept"
"""On a run of tables: comma-separated audits whose findings are accepted, so that they do not hold
partitions; ``true``: all audits."""

DECISION_TAG = "gardener/decision"
"""On a run that carries out a person's decision: the number of the held partition."""

HISTORY_TAG = "gardener/history"
"""On a run of the historical pass: the pass and its part that the run parses."""

PARSE_TAG = "gardener/parse"
"""On each run that waits for parsers: its priority. The run queue limits each priority."""

URGENT_TABLES_TAG = "gardener/urgent_tables"
"""On each run that makes tables and must not wait for backfills: its experiments. The run queue
reserves slots for these runs."""

TABLES_TAG = "gardener/tables"
"""On every other run that makes tables: its experiments. The run queue limits these runs."""

BACKFILL_TAG = "dagster/backfill"
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"
QUEUE_TAG = "dagster/priority"
"""A number; the queue starts waiting runs with larger numbers first."""

QUEUE_ORDER: Mapping[Priority, str] = {
    Priority.DAILY: "10",
    Priority.BACKFILL: "0",
    Priority.HISTORICAL: "-10",
}
PARENT_RUN_TAG = "dagster/parent_run_id"
ROOT_RUN_TAG = "dagster/root_run_id"
RETRY_TAG = "dagster/retry_number"
"""On a run that Dagster started as a retry of a lost run; absent on a person's re-execution."""
_RESUMES = ("dagster/is_resume_retry", "dagster/is_asset_resume_retry", RETRY_TAG)


def parsed_key(source: Source) -> dg.AssetKey:
    """Return ``parsed/<experiment>/<datatype>``, the key of the parsers' objects."""
    return dg.AssetKey([PARSED, source.experiment, source.datatype])


def tmp_key(source: Source) -> dg.AssetKey:
    """Return ``<tmp dataset>/<datatype>``, the key of the tmp table."""
    return dg.AssetKey([source.target_datasets.tmp, source.datatype])


def raw_key(source: Source) -> dg.AssetKey:
    """Return ``<raw dataset>/<datatype>``, the key of the raw table."""
    return dg.AssetKey([source.target_datasets.raw, source.datatype])


def joined_key(source: Source) -> dg.AssetKey | None:
    """Return ``<join dataset>/<datatype>``; ``None`` if the source has no joined table."""
    join = source.target_datasets.join
    return dg.AssetKey([join, source.datatype]) if join else None


def table_keys(source: Source) -> list[dg.AssetKey]:
    """Return the keys of a source's tables, in the order in which they are made."""
    joined = joined_key(source)
    return [tmp_key(source), raw_key(source), *([joined] if joined else [])]


def source_tables(source: Source) -> SourceTables:
    """Convert a source to the warehouse's type."""
    return SourceTables(
        experiment=source.experiment,
        datatype=source.datatype,
        tmp=source.target_datasets.tmp,
        raw=source.target_datasets.raw,
        joined=source.target_datasets.join or "",
        annotations=source.annotations,
    )


def tables_tag(tags: Mapping[str, str]) -> str:
    """Return the tag key for a run that makes tables, derived from its other tags.

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
    """Return the priority of the jobs that a run requests."""
    match tags.get(PRIORITY_TAG):
        case "daily":
            return Priority.DAILY
        case "historical":
            return Priority.HISTORICAL
        case _:
            return Priority.BACKFILL


def accepted_audits(tags: Mapping[str, str], *, known: Iterable[str]) -> frozenset[str]:
    """Return the audits whose findings a run's tags accept: they hold no partition of the run.

    Raises:
        ValueError: The tag names an unknown audit.
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
    """Return the number of the held partition whose decision the run carries out, or ``None``.

    Raises:
        ValueError: The tag's value is not a number.
    """
    text = tags.get(DECISION_TAG)
    if text is not None and not text.isdecimal():
        raise ValueError(f"the tag {DECISION_TAG}: {text!r}: expected a number")
    return int(text) if text is not None else None


def may_empty(tags: Mapping[str, str]) -> bool:
    """Whether a run may replace a partition that has rows by an empty one."""
    return tags.get(MAY_EMPTY_TAG) == "true"


def resumes(tags: Mapping[str, str]) -> bool:
    """Whether a run continues its root run: a retry, or a re-execution from failure."""
    return any(tag in tags for tag in _RESUMES)


def root_run_of(run_id: str, tags: Mapping[str, str]) -> str:
    """Return the ID of the root run that this run continues; its own ID if it continues none."""
    return tags.get(ROOT_RUN_TAG, run_id) if resumes(tags) else run_id


def requester_of(run_id: str, tags: Mapping[str, str]) -> str:
    """Return the requester of a run: the same for all runs that share a parse of a date.

    All runs of a backfill have one requester. A run that continues another has the requester of
    its root run. A run that a person re-executes as a whole is a new requester.
    """
    anew = PARENT_RUN_TAG in tags and not resumes(tags)
    if BACKFILL_TAG in tags and not anew:
        return f"backfill/{tags[BACKFILL_TAG]}"
    return f"run/{root_run_of(run_id, tags)}"
