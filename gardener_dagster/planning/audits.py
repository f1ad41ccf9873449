"""The audits and asset checks: each judges a partition by numbers that it is given. Pure.

``publication`` decides whether to publish; ``assets.checks`` provides the numbers.
"""

import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gardener_api.archive import ParsedObject
from gardener_api.store.tables.check_results import CheckResult
from gardener_dagster.warehouse.results import KeyCount, Origin

NAMED = 10
"""Maximum number of archives named in a description; the metadata names up to ten times as many."""

WEEK_NEEDS = 3
"""Minimum number of days with rows for a comparison with the week before."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The result of an audit or check.

    Attributes:
        passed: Whether the check passed.
        warns: Whether a failure is only a warning: it may be legitimate, so a person should look.
        description: What was found and, if the check failed, what to do.
        metadata: The numbers that the verdict is based on.
    """

    passed: bool
    description: str
    warns: bool = False
    metadata: Mapping[str, int | float | str] = field(default_factory=dict)

    def result(self, table: str, name: str) -> CheckResult:
        """Convert the verdict to the form that the job store keeps.

        Args:
            table: The checked table, as ``<dataset>.<table>``.
            name: Name of the check.
        """
        return CheckResult(
            table=table,
            name=name,
            passed=self.passed,
            severity="warn" if self.warns else "error",
            description=self.description,
            metadata=self.metadata,
        )


def unique_keys(key: Sequence[str], count: KeyCount) -> Verdict:
    """Check that no two rows have the same key, and that removing duplicates lost no row.

    Args:
        key: The columns of the dedup key.
        count: Counts of the partition. Negative ``duplicates``: there are fewer rows than keys.
    """
    name = ", ".join(key)
    if count.duplicates > 0:
        found = f"{count.duplicates:,} of {count.rows:,} rows share their {name} with another"
    else:
        found = f"{-count.duplicates:,} rows were lost when duplicates were removed"
    return Verdict(
        passed=count.duplicates == 0,
        description=(
            f"{found}: materialize tmp and raw of the date again"
            if count.duplicates
            else f"{count.rows:,} rows, each {name} once"
        ),
        metadata={
            "rows": count.rows,
            "duplicates": count.duplicates,
            "rows without a key": count.keyless,
        },
    )


def rows_present(rows: int, archives: int, objects: Iterable[ParsedObject]) -> Verdict:
    """Check that there are rows if there are archives.

    Only a warning if the parsers wrote no rows: archives may contain no tests.
    """
    written = sum(o.rows if o.rows is not None else bool(o.size) for o in objects)
    if rows or not archives:
        description = f"{rows:,} rows of {archives:,} archives"
    elif written:
        description = (
            f"no rows, though parsers wrote some of {archives:,} archives:"
            " materialize tmp and raw of the date again"
        )
    else:
        description = (
            f"no rows: parsers found no tests in {archives:,} archives: see the parser's log"
        )
    return Verdict(
        passed=bool(rows) or not archives,
        warns=not written,
        description=description,
        metadata={"rows": rows, "archives": archives},
    )


def archives_parsed(
    bucket: str,
    archives: Collection[str],
    objects: Iterable[ParsedObject],
    origins: Sequence[Origin],
) -> Verdict:
    """Check that each archive now in the bucket was parsed, and that its rows are in raw.

    Args:
        bucket: Bucket of the archives.
        archives: Names of the date's archives.
        objects: Objects that parsers wrote for the date.
        origins: Archives and parser versions of the audited rows.
    """
    loaded = {origin.archive for origin in origins}
    written = {o.name: o for o in objects}
    absent = [name for name in sorted(archives) if f"gs://{bucket}/{name}" not in loaded]
    unparsed = [name for name in absent if f"{bucket}/{name}.jsonl" not in written]
    unloaded = [
        name
        for name in absent
        if (o := written.get(f"{bucket}/{name}.jsonl")) is not None
        and (o.size if o.rows is None else o.rows)
    ]
    faults = []
    if unparsed:
        faults.append(
            f"{len(unparsed):,} of {len(archives):,} archives were not parsed: they came after the"
            f" parse, or the parser left them out: materialize parsed of the date again."
            f" {_some(unparsed)}"
        )
    if unloaded:
        faults.append(
            f"{len(unloaded):,} archives have parsed rows, but none in raw: their objects are of an"
            " older parse, or all their rows are duplicates of others: materialize tmp and raw of"
            f" the date again, and look at {_some(unloaded)}"
        )
    return Verdict(
        passed=not faults,
        warns=not unparsed,
        description=" Also ".join(faults) or f"{len(archives):,} archives, all parsed and loaded",
        metadata={
            "archives": len(archives),
            "archives in raw": len(loaded),
            "not parsed": _some(unparsed, NAMED * 10),
            "parsed, but not in raw": _some(unloaded, NAMED * 10),
        },
    )


def one_parser_version(origins: Sequence[Origin]) -> Verdict:
    """Check that one version of the parser wrote all rows of a date."""
    rows: dict[str, int] = {}
    for origin in origins:
        rows[origin.version] = rows.get(origin.version, 0) + origin.rows
    each = ", ".join(f"{version or 'none'}: {count:,} rows" for version, count in rows.items())
    return Verdict(
        passed=len(rows) <= 1,
        warns=True,
        description=(
            f"{len(rows)} parser versions ({each}): a parser was replaced while it parsed the date:"
            " materialize parsed of the date again"
            if len(rows) > 1
            else each or "no rows"
        ),
        metadata={"parser versions": each},
    )


def rows_of_previous(rows: int, previous: int | None, *, share: float) -> Verdict:
    """Check that the partition does not have far fewer rows than its previous version.

    Args:
        rows: Number of rows now.
        previous: Number of rows of the previous version; None: there was none.
        share: Minimum of ``rows``, as a share of ``previous``.
    """
    if previous is None:
        return Verdict(passed=True, description="the first version", metadata={"rows": rows})
    fewer = rows < share * previous
    return Verdict(
        passed=not fewer,
        warns=True,
        description=f"{rows:,} rows, {previous:,} in the version before"
        + (": see in the parser's log what it left out" if fewer else ""),
        metadata={"rows": rows, "rows of the version before": previous},
    )


def ids_of_previous(kept: int, removed: int, *, share: float) -> Verdict:
    """Check that the partition has nearly all ids of the version that it replaces.

    Args:
        kept: Number of ids in both versions.
        removed: Number of ids in the previous version only.
        share: Minimum share of the previous ids that must be kept.
    """
    before = kept + removed
    if not before:
        return Verdict(passed=True, description="no ids before")
    fewer = kept < share * before
    return Verdict(
        passed=not fewer,
        warns=True,
        description=f"{kept:,} of the {before:,} ids of the version before"
        + (": see in the parser's log what it left out" if fewer else ""),
        metadata={"ids of the version before": before, "of these kept": kept},
    )


def unique_ids(rows: int, ids: int, *, before: float | None, share: float) -> Verdict:
    """Check that ids repeat no more than in the previous version: dedup keys may have more columns.

    Args:
        rows: Number of rows with a key.
        ids: Number of distinct ids among them.
        before: Distinct ids per row in the previous version; None: there was none.
        share: Minimum of ``ids / rows``, as a share of ``before``.
    """
    found = ids / rows if rows else 1.0
    if before is None:
        return Verdict(passed=True, description=f"{ids:,} ids in {rows:,} rows, the first version")
    fewer = found < share * before
    return Verdict(
        passed=not fewer,
        warns=True,
        description=f"{found:.4f} ids a row, {before:.4f} in the version before"
        + (
            ": rows with one id differ in the rest of the dedup key: see the parser's log"
            if fewer
            else ""
        ),
        metadata={"ids": ids, "ids a row": round(found, 4), "ids a row before": round(before, 4)},
    )


def annotated_of_previous(
    rows: int, annotated: int, before: tuple[int, int] | None, *, share: float
) -> Verdict:
    """Check that the share of annotated rows is not far below that of the previous version.

    Args:
        rows: Number of rows of the partition to be joined.
        annotated: Number of them that have an annotation.
        before: Number of rows and of annotated rows of the joined partition that is replaced;
            None: there is none, or the numbers are not known.
        share: Minimum of ``annotated / rows``, relative to the previous share.
    """
    found = annotated / rows if rows else 1.0
    if before is None or not before[0]:
        return Verdict(passed=True, description=f"{found:.1%} annotated, none known before")
    previous = before[1] / before[0]
    fewer = found < share * previous
    return Verdict(
        passed=not fewer,
        warns=True,
        description=f"{found:.1%} of the rows annotated, {previous:.1%} in the version before"
        + (
            ": see whether the annotations of the date and of the day before are complete; when"
            " they are parsed again, the date is joined again automatically"
            if fewer
            else ""
        ),
        metadata={"share annotated": round(found, 4), "share before": round(previous, 4)},
    )


def rows_of_week(rows: int, days_before: Sequence[int], *, share: float) -> Verdict:
    """Check that the date has about as many rows as the days before it.

    Args:
        rows: Number of rows of the date.
        days_before: Numbers of rows of the seven days before it; 0: not made.
        share: ``rows`` must be from ``share * median`` to ``median / share``; 0: no limits.
    """
    made = [count for count in days_before if count]
    if len(made) < WEEK_NEEDS:
        return Verdict(
            passed=True,
            description=f"{rows:,} rows; only {len(made)} of the 7 days before have any to compare",
            metadata={"rows": rows},
        )
    median = statistics.median(made)
    unusual = rows < share * median or (share > 0 and rows > median / share)
    return Verdict(
        passed=not unusual,
        warns=True,
        description=f"{rows:,} rows, {median:,.0f} in the median of the 7 days before"
        + (": see whether archives are missing or came twice" if unusual else ""),
        metadata={"rows": rows, "median of the 7 days before": float(median)},
    )


def rows_of_raw(rows: int, rows_of_raw: int) -> Verdict:
    """Check that the joined partition has as many rows as raw."""
    same = rows == rows_of_raw
    return Verdict(
        passed=same,
        description=(
            f"{rows:,} rows, as raw"
            if same
            else f"{rows:,} rows, but raw has {rows_of_raw:,}: materialize the joined date again"
        ),
        metadata={"rows": rows, "rows of raw": rows_of_raw},
    )


def wrong_row_count(error: str) -> Verdict:
    """Return the failed verdict of a join whose number of rows differs from raw's.

    Args:
        error: The error message of the join.
    """
    return Verdict(passed=False, description=error)


def annotated(rows: int, annotated: int, *, share: float) -> Verdict:
    """Check that enough rows have an annotation.

    Args:
        rows: Number of rows of the partition.
        annotated: Number of them that have an annotation.
        share: Minimum share of annotated rows.
    """
    found = annotated / rows if rows else 1.0
    low = found < share
    return Verdict(
        passed=not low,
        warns=True,
        description=f"{annotated:,} of {rows:,} rows are annotated ({found:.1%})"
        + (
            f", fewer than {share:.0%}: see whether the annotations of the date and of the day"
            " before are complete; when they are parsed again, the date is joined again"
            " automatically"
            if low
            else ""
        ),
        metadata={"rows": rows, "rows annotated": annotated, "share annotated": round(found, 4)},
    )


def _some(names: Sequence[str], most: int = NAMED) -> str:
    more = f" … and {len(names) - most:,} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more
