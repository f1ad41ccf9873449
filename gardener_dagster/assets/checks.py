"""The asset checks of a source's tables: what they are called, and how a run's results sum up.

The step that makes a table also checks it, with data that it already has. ``audits`` computes the
verdict on a date. The checks are not partitioned: Dagster computes the states of partitioned checks
from their whole history for every page. So a result summarizes all dates of its run; the results of
each date are in the job store and on the status page.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from gardener_api.archive import ParsedObject
from gardener_api.audit_rules import AuditRules
from gardener_api.config import Source
from gardener_api.formatting import spans
from gardener_dagster.assets.keys import joined_key, raw_key
from gardener_dagster.planning import audits
from gardener_dagster.planning.audits import Verdict
from gardener_dagster.warehouse.results import AnnotationCount, KeyComparison, KeyCount, Origin

FAILING = "failing dates"
"""Metadata key of a result: its failing dates, with ``date``, ``severity``, ``description``."""
CHECKS_ONLY = "failed checks only"
"""Metadata key of a run's failure if only checks failed: alerts report a failed check."""
FAILING_NAMED = 10
FAILING_KEPT = 100


def check_specs(source: Source, rules: AuditRules) -> list[dg.AssetCheckSpec]:
    """Return the checks of a source's raw and joined tables."""
    archives = f"gs://{source.bucket}/{source.experiment}/{source.datatype}/"
    share = {name: f"{rule.threshold:.0%}" for name, rule in rules.items()}
    of_raw = {
        "unique_keys": (
            f"No two rows of a date share `{', '.join(source.dedup_key)}`; a join would multiply"
            " them, so it is not made where this fails."
        ),
        "unique_ids": (
            f"Ids are as unique as in the version before, at least {share['unique_ids']} of it."
        ),
        "rows_present": "There are rows where the archives had tests.",
        "archives_parsed": f"Every archive of the date in `{archives}` has rows here.",
        "one_parser_version": "All rows of a date were made by one version of the parser.",
        "rows_of_previous": (
            f"At least {share['rows_of_previous']} of the rows of the version before."
        ),
        "ids_of_previous": f"At least {share['ids_of_previous']} of the ids of the version before.",
        "rows_of_week": (
            f"Not under {share['rows_of_week']} of the median of the 7 days before, nor over as"
            " many times it."
        ),
    }
    of_joined = {
        "rows_of_raw": f"As many rows as `{source.raw_table}`: the join loses and multiplies none.",
        "annotated": f"At least {share['annotated']} of the rows have an annotation.",
        "annotated_of_previous": (
            f"At least {share['annotated_of_previous']} of the share of the version before has an"
            " annotation."
        ),
    }
    specs = [(raw_key(source), of_raw)]
    joined = joined_key(source)
    if joined:
        specs.append((joined, of_joined))
    return [
        dg.AssetCheckSpec(
            name=name,
            asset=key,
            description=f"{description} (`audits.{name}`)" if name in rules else description,
        )
        for key, checks in specs
        for name, description in checks.items()
    ]


def of_raw(
    source: Source,
    rules: AuditRules,
    *,
    keys: KeyComparison,
    archives: Sequence[str],
    objects: Sequence[ParsedObject],
    origins: Sequence[Origin],
    days_before: Sequence[int],
) -> dict[str, Verdict]:
    """Audit a date's rows before they are published in raw, or rows that already are.

    Args:
        source: Source of the rows.
        rules: Audit rules of the source.
        keys: Keys of the rows, compared with those of the version before.
        archives: Names of the date's archives.
        objects: Objects that parsers wrote for the archives.
        origins: Archives and parser versions of the rows.
        days_before: Row counts of the seven days before.
    """
    with_key, before = keys.rows - keys.keyless, keys.published - keys.published_keyless
    count = KeyCount(rows=keys.rows, keyless=keys.keyless, duplicates=keys.duplicates)
    return {
        "unique_keys": audits.unique_keys(source.dedup_key, count),
        "unique_ids": audits.unique_ids(
            with_key,
            keys.ids,
            before=keys.published_ids / before if before else None,
            share=rules["unique_ids"].threshold,
        ),
        "rows_present": audits.rows_present(keys.rows, len(archives), objects),
        "archives_parsed": audits.archives_parsed(source.bucket, archives, objects, origins),
        "one_parser_version": audits.one_parser_version(origins),
        "rows_of_previous": audits.rows_of_previous(
            keys.rows, keys.published_unique or None, share=rules["rows_of_previous"].threshold
        ),
        "ids_of_previous": audits.ids_of_previous(
            keys.kept, keys.removed, share=rules["ids_of_previous"].threshold
        ),
        "rows_of_week": audits.rows_of_week(
            keys.rows, days_before, share=rules["rows_of_week"].threshold
        ),
    }


def of_annotations(
    rules: AuditRules, count: AnnotationCount, before: tuple[int, int] | None
) -> Mapping[str, Verdict]:
    """Audit the rows that a join would make for a date.

    Args:
        rules: Audit rules of the source.
        count: Number of rows, and of those that would be annotated.
        before: The same two numbers of the joined partition to be replaced; ``None`` if unknown.
    """
    return {
        "annotated": audits.annotated(
            count.rows, count.annotated, share=rules["annotated"].threshold
        ),
        "annotated_of_previous": audits.annotated_of_previous(
            count.rows, count.annotated, before, share=rules["annotated_of_previous"].threshold
        ),
    }


def summed_up(check: dg.AssetCheckKey, found: Mapping[dt.date, Verdict]) -> dg.AssetCheckResult:
    """Return one result of a check for all dates of a run; it names the first failing dates.

    Args:
        check: Key of the check.
        found: Verdict on each date; at least one.
    """
    failing = {date: verdict for date, verdict in sorted(found.items()) if not verdict.passed}
    errors = any(not verdict.warns for verdict in failing.values())
    return dg.AssetCheckResult(
        asset_key=check.asset_key,
        check_name=check.name,
        passed=not failing,
        severity=dg.AssetCheckSeverity.ERROR if errors else dg.AssetCheckSeverity.WARN,
        description=_description(found, failing),
        metadata=_metadata(found, failing),
    )


def _description(found: Mapping[dt.date, Verdict], failing: Mapping[dt.date, Verdict]) -> str:
    if len(found) == 1:
        [(date, verdict)] = found.items()
        return f"{date}: {verdict.description}"
    if not failing:
        return f"all {len(found)} dates pass: {spans(found)}"
    named = [f"{date}: {v.description}" for date, v in list(failing.items())[:FAILING_NAMED]]
    more = len(failing) - len(named)
    return "\n".join(
        [
            f"{len(failing)} of {len(found)} dates do not pass:",
            *named,
            *([f"… and {more} more"] if more else []),
        ]
    )


def _metadata(
    found: Mapping[dt.date, Verdict], failing: Mapping[dt.date, Verdict]
) -> dict[str, Any]:
    about: dict[str, Any] = {"dates": spans(found)}
    if len(found) == 1:
        [verdict] = found.values()
        about |= verdict.metadata
    if failing:
        about[FAILING] = dg.MetadataValue.json(
            [
                {
                    "date": date.isoformat(),
                    "severity": "warning" if verdict.warns else "error",
                    "description": verdict.description,
                }
                for date, verdict in list(failing.items())[:FAILING_KEPT]
            ]
        )
    return about
