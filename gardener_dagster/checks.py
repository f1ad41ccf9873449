"""Asset checks: they look at a table after each run that made it, and change nothing.

Facts are fetched here; what they say of the partition is decided in ``verdicts``. The checks of a
table that read the same facts are one step, which fetches them once.
"""

import datetime as dt
import warnings
from collections.abc import Iterator, Mapping

import dagster as dg

from gardener_api.archive import list_archives, list_parsed
from gardener_api.config import Checks, GardenerConfig, Source
from gardener_api.store import JobStore
from gardener_dagster import verdicts
from gardener_dagster.graph import joined_key, raw_key, source_tables
from gardener_dagster.partitions import date_of
from gardener_dagster.planning import job_key
from gardener_dagster.resources import GCSResource, WarehouseResource
from gardener_dagster.verdicts import Verdict
from gardener_dagster.warehouse.names import JobContext


def build_checks(
    config: GardenerConfig, partitions: dg.PartitionsDefinition[str]
) -> list[dg.AssetChecksDefinition]:
    """The checks of every source."""
    checks = []
    with warnings.catch_warnings():
        # Checks with partitions may still change in Dagster. Without, only the date that was
        # checked last would show its result.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        for source in config.sources:
            checks += [
                _unique_keys(source, partitions),
                _checks_of_raw(source, partitions, config.checks),
            ]
            if source.joined_table:
                checks.append(_checks_of_joined(source, partitions, config.checks))
    return checks


def _unique_keys(
    source: Source, partitions: dg.PartitionsDefinition[str]
) -> dg.AssetChecksDefinition:
    key = ", ".join(source.dedup_key)

    @dg.asset_check(
        asset=raw_key(source),
        name="unique_keys",
        blocking=True,
        partitions_def=partitions,
        description=f"No two rows of a date share `{key}`; a join would multiply them.",
    )
    def unique_keys(
        context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource
    ) -> dg.AssetCheckResult:
        ctx, tables = _bq(context), source_tables(source)
        count = warehouse.tables.survey.count_keys(
            tables, tables.raw_partition(ctx.date), source.dedup_key, ctx
        )
        return _result(
            raw_key(source), "unique_keys", verdicts.unique_keys(source.dedup_key, count)
        )

    return unique_keys


def _checks_of_raw(
    source: Source, partitions: dg.PartitionsDefinition[str], limits: Checks
) -> dg.AssetChecksDefinition:
    archives = f"gs://{source.bucket}/{source.experiment}/{source.datatype}/"
    specs = {
        "rows_present": "There are rows where the archives had tests.",
        "archives_parsed": f"Every archive of the date in `{archives}` has rows here.",
        "one_parser_version": "All rows of a date were made by one version of the parser.",
        "rows_of_previous": (
            f"At least {limits.rows_of_previous:.0%} of the rows of the version before"
            " (`checks.rows_of_previous`)."
        ),
        "rows_of_week": (
            f"Not under {limits.rows_of_week:.0%} of the median of the 7 days before, nor over as"
            " many times it (`checks.rows_of_week`)."
        ),
    }

    @dg.multi_asset_check(
        name=f"checks_of_{source.target_datasets.raw}_{source.datatype}",
        specs=_specs(raw_key(source), partitions, specs),
    )
    def checks_of_raw(
        context: dg.AssetCheckExecutionContext,
        job_store: dg.ResourceParam[JobStore],
        warehouse: WarehouseResource,
        gcs: GCSResource,
    ) -> Iterator[dg.AssetCheckResult]:
        ctx, tables = _bq(context), source_tables(source)
        key = job_key(source, ctx.date)
        names = list_archives(gcs.client, key.bucket, key.prefix, source.filter).names
        objects = list_parsed(gcs.client, gcs.parsed_bucket, key)
        survey = warehouse.tables.survey
        origins = survey.origins(tables, tables.raw_partition(ctx.date), ctx)
        rows = sum(origin.rows for origin in origins)
        week = [ctx.date - dt.timedelta(days=days) for days in range(1, 8)]
        found = {
            "rows_present": verdicts.rows_present(rows, len(names), objects),
            "archives_parsed": verdicts.archives_parsed(key.bucket, names, objects, origins),
            "one_parser_version": verdicts.one_parser_version(origins),
            "rows_of_previous": verdicts.rows_of_previous(
                rows,
                previous_rows(job_store, source, ctx),
                share=limits.rows_of_previous,
            ),
            "rows_of_week": verdicts.rows_of_week(
                rows,
                survey.count_rows(tables, [tables.raw_partition(day) for day in week], ctx),
                share=limits.rows_of_week,
            ),
        }
        yield from _results(raw_key(source), found)

    return checks_of_raw


def _checks_of_joined(
    source: Source, partitions: dg.PartitionsDefinition[str], limits: Checks
) -> dg.AssetChecksDefinition:
    key = joined_key(source)
    if key is None:
        raise ValueError(f"{source.name}: target_datasets.join is not set: nothing to check")
    specs = {
        "rows_of_raw": f"As many rows as `{source.raw_table}`: the join loses and multiplies none.",
        "annotated": (
            f"At least {limits.annotated:.0%} of the rows have an annotation (`checks.annotated`)."
        ),
    }

    @dg.multi_asset_check(
        name=f"checks_of_{source.target_datasets.join}_{source.datatype}",
        specs=_specs(key, partitions, specs),
    )
    def checks_of_joined(
        context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource
    ) -> Iterator[dg.AssetCheckResult]:
        ctx, tables = _bq(context), source_tables(source)
        survey = warehouse.tables.survey
        rows, of_raw = survey.count_rows(
            tables, [tables.joined_partition(ctx.date), tables.raw_partition(ctx.date)], ctx
        )
        # Nothing was joined where raw was never made; the table may not be there.
        annotated = survey.count_annotated(tables, ctx) if rows else 0
        found = {
            "rows_of_raw": verdicts.rows_of_raw(rows, of_raw),
            "annotated": verdicts.annotated(rows, annotated, share=limits.annotated),
        }
        yield from _results(key, found)

    return checks_of_joined


def previous_rows(store: JobStore, source: Source, ctx: JobContext) -> int | None:
    """Rows that raw had before this run replaced them; None where the store knows of none."""
    copies = [
        operation.rows
        for operation in store.tables.operations(job_key(source, ctx.date))
        if operation.operation == "copy" and operation.run_id != ctx.run_id
    ]
    return copies[-1] if copies else None


def _bq(context: dg.AssetCheckExecutionContext) -> JobContext:
    return JobContext(run_id=context.run.run_id, date=date_of(context.partition_key))


def _specs(
    key: dg.AssetKey, partitions: dg.PartitionsDefinition[str], specs: Mapping[str, str]
) -> list[dg.AssetCheckSpec]:
    return [
        dg.AssetCheckSpec(name=name, asset=key, description=description, partitions_def=partitions)
        for name, description in specs.items()
    ]


def _results(key: dg.AssetKey, found: Mapping[str, Verdict]) -> Iterator[dg.AssetCheckResult]:
    for name, verdict in found.items():
        yield _result(key, name, verdict)


def _result(key: dg.AssetKey, name: str, verdict: Verdict) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=name,
        passed=verdict.passed,
        severity=dg.AssetCheckSeverity.WARN if verdict.warns else dg.AssetCheckSeverity.ERROR,
        description=verdict.description,
        metadata=verdict.metadata,
    )
