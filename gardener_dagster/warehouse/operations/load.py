"""Loads the objects of a parse into its tmp partition; says why where BigQuery refuses them."""

import datetime as dt
import logging
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Literal

from google.cloud import bigquery

from gardener_dagster.warehouse.engine import Engine, Parameter
from gardener_dagster.warehouse.errors import (
    BigQueryFailure,
    NewField,
    ObjectsChanged,
    TooManyObjects,
    WarehouseError,
    WrongDate,
)
from gardener_dagster.warehouse.names import Step, quoted_table
from gardener_dagster.warehouse.objects import MAXIMUM_URIS, LoadSource
from gardener_dagster.warehouse.operations.tables import Tables
from gardener_dagster.warehouse.queries import query
from gardener_dagster.warehouse.results import BqJob, LoadResult
from gardener_dagster.warehouse.table_schemas import Field, has_field, is_known, merge, schema_of

_log = logging.getLogger(__name__)

SchemaUpdate = Literal["error", "add"]

_ROUNDS = 20
"""Maximum tries of a load. After each failed one, all new columns of one object are added."""

_SCRATCH_LIFE = dt.timedelta(days=1)

_ORIGIN_SCHEMA: list[Field] = [
    {"name": "date", "type": "DATE"},
    {"name": "parser", "type": "RECORD", "fields": [{"name": "ArchiveURL", "type": "STRING"}]},
]


class Loader:
    """The load operation."""

    def __init__(
        self,
        engine: Engine,
        tables: Tables,
        *,
        schema_update: SchemaUpdate,
        now: Callable[[], dt.datetime],
    ) -> None:
        self._engine, self._tables, self._now = engine, tables, now
        self._schema_update = schema_update

    def ensure_tables(self, step: Step) -> None:
        """Create the source's tmp and raw tables if missing, and give both the same columns."""
        tables = step.tables
        tmp, raw = (
            partition(step.ctx.date).table_id
            for partition in (tables.tmp_partition, tables.raw_partition)
        )
        of_raw = self._tables.ensure(step, raw, schema_of(tables.datatype))
        of_both = self._tables.ensure(step, tmp, of_raw)
        if merge(of_raw, of_both)[1]:
            self._tables.add_fields(step, raw, of_both)  # otherwise BigQuery refuses a copy

    def load(self, step: Step, source: LoadSource) -> LoadResult:
        """Replace the tmp partition with the rows of the source's objects."""
        if len(source.uris) > MAXIMUM_URIS:
            raise TooManyObjects(
                f"the {source.objects:,} objects of this parse need {len(source.uris):,} URIs, as"
                f" {len(source.stale) + len(source.orphaned):,} others lie between them;"
                f" one load job takes {MAXIMUM_URIS:,}",
                operation=step.operation,
                table=step.partition.id,
                advice="delete the objects that are not of this parse (the run lists them),"
                " then re-execute the run",
            )
        self.ensure_tables(step)
        if not source.uris:
            self._tables.delete_partition(step, step.partition)
            return self._result(step, rows=0)
        added: list[str] = []
        job, done = self._run(step, source, source.uris, added)
        if not source.objects - source.empty <= (job.input_files or 0) <= source.objects:
            job, done = self._load_by_name(step, source, job, done, added)
        return self._result(
            step,
            rows=job.output_rows or 0,
            objects=job.input_files or 0,
            size=job.input_file_bytes or 0,
            bq_jobs=(done,),
            added=added,
        )

    def _load_by_name(
        self,
        step: Step,
        source: LoadSource,
        job: bigquery.LoadJob,
        done: BqJob,
        added: list[str],
    ) -> tuple[bigquery.LoadJob, BqJob]:
        """Load again without patterns: they matched other objects than the chosen ones."""
        read = job.input_files or 0
        if source.names and len(source.names) <= MAXIMUM_URIS:
            _log.warning(
                "%s: %s matched %d objects, %d were chosen: loading these by name",
                *(step.partition, ", ".join(source.uris[:3]), read, source.objects),
            )
            return self._run(step, source, source.names, added, part="by-name")
        self._tables.delete_partition(step, step.partition)  # it holds the wrong rows
        raise ObjectsChanged(
            f"BigQuery read {read:,} objects, {source.objects:,} were chosen",
            operation=step.operation,
            table=step.partition.id,
            bq_job_id=done.id,
            bq_job_url=done.url,
            advice="objects came or went while they were loaded: see that no parser works on the"
            " date, then materialize tmp again",
        )

    def _run(
        self,
        step: Step,
        source: LoadSource,
        uris: Sequence[str],
        added: list[str],
        *,
        part: str = "",
    ) -> tuple[bigquery.LoadJob, BqJob]:
        """Run the load job; if the data has new fields that may be added, add them and rerun it.

        Args:
            step: the load; its partition is replaced.
            source: named in errors; its version becomes the job's label `inputs`.
            uris: the URIs to load.
            added: the added columns are appended to it.
            part: part of the job's id.
        """
        begin = self._begin(step, uris, inputs=source.version)
        for attempt in range(_ROUNDS):
            fields = f"fields{attempt}" if attempt else ""
            parts = "-".join(filter(None, (part, fields)))
            try:
                return self._engine.run(step, begin, parts, inputs=source.version)
            except BigQueryFailure as error:
                if error.failure.new_field and attempt < _ROUNDS - 1:
                    added += self._learn_fields(step, error)
                    continue
                if error.failure.wrong_date:
                    self._raise_wrong_date(step, source, error)
                raise
        raise AssertionError("the last round returns or raises")

    @staticmethod
    def _result(
        step: Step,
        *,
        rows: int,
        objects: int = 0,
        size: int = 0,
        bq_jobs: tuple[BqJob, ...] = (),
        added: Sequence[str] = (),
    ) -> LoadResult:
        return LoadResult(
            operation=step.operation,
            table=step.partition.id,
            rows=rows,
            bq_jobs=bq_jobs,
            objects=objects,
            bytes_loaded=size,
            added_fields=tuple(added),
        )

    def _begin(
        self,
        step: Step,
        uris: Sequence[str],
        table_id: str = "",
        *,
        inputs: str = "",
        **properties: object,
    ) -> Callable[[str, dict[str, Any]], bigquery.LoadJob]:
        config = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.NEWLINE_DELIMITED_JSON,
            write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE,
            create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
            labels=step.labels | ({"inputs": inputs} if inputs else {}),
            **properties,
        )
        config.job_timeout_ms = self._engine.job_timeout_ms
        destination = self._engine.reference(table_id or step.partition.id)

        def begin(job_id: str, options: dict[str, Any]) -> bigquery.LoadJob:
            return self._engine.client.load_table_from_uri(
                list(uris),
                destination,
                job_id=job_id,
                job_config=config,
                location=self._engine.location,
                **options,
            )

        return begin

    def _learn_fields(self, step: Step, error: BigQueryFailure) -> tuple[str, ...]:
        """Add the columns of the object that BigQuery names to all tables of the source."""
        field, url, datatype = error.failure.new_field, error.failure.object, step.tables.datatype
        if self._schema_update == "error" and is_known(datatype):
            raise NewField(
                field,
                url,
                advice=f"add the field to gardener_dagster/warehouse/schemas/{datatype}.json, or"
                " let new fields be added (bigquery.schema_update: add), then re-execute the run",
                cause=error,
            ) from error
        if has_field(self._tables.schema(step, step.partition.table_id), field):
            return ()  # an earlier try of this load added it
        found = self._detect(step, url) if url else []
        added: tuple[str, ...] = ()
        for partition in (step.tables.tmp_partition, step.tables.raw_partition):
            added = self._tables.add_fields(step, partition(step.ctx.date).table_id, found) or added
        if step.tables.joined:
            self._tables.add_fields(
                step, step.tables.joined_partition(step.ctx.date).table_id, found
            )
        if not added:
            raise NewField(
                field,
                url,
                detail=", and BigQuery's autodetection does not see it in the object's first rows",
                advice=f"add the field to gardener_dagster/warehouse/schemas/{datatype}.json with"
                " its type, then re-execute the run",
                cause=error,
            ) from error
        return added

    def _scratch(self, step: Step) -> tuple[str, str]:
        """Return a unique id for a scratch table, and a unique part for its job ids."""
        token = uuid.uuid4().hex[:12]
        return f"{step.partition.table_id}_look_{token}", f"look-{token}"

    def _detect(self, step: Step, url: str) -> list[Field]:
        table_id, part = self._scratch(step)
        self._tables.make_scratch(step, table_id, [], expires=self._now() + _SCRATCH_LIFE)
        try:
            self._engine.run(step, self._begin(step, [url], table_id, autodetect=True), part)
            return self._tables.schema(step, table_id)
        finally:
            self._tables.delete(step, table_id)

    def _raise_wrong_date(self, step: Step, source: LoadSource, error: BigQueryFailure) -> None:
        """Count the rows of another date and raise `WrongDate`; BigQuery reports no count."""
        table_id, part = self._scratch(step)
        try:
            self._tables.make_scratch(
                step, table_id, _ORIGIN_SCHEMA, expires=self._now() + _SCRATCH_LIFE
            )
            try:
                self._engine.run(
                    step, self._begin(step, source.uris, table_id, ignore_unknown_values=True), part
                )
                [row], _ = self._engine.select(
                    step,
                    query("wrong_date", table=quoted_table(self._engine.project, table_id)),
                    [Parameter("date", "DATE", step.ctx.date)],
                    part=f"{part}-count",
                )
            finally:
                self._tables.delete(step, table_id)
        except WarehouseError as second:
            error.add_note(f"The rows could not be counted: {second}")
            return  # the caller raises the original error
        output_bucket = source.uris[0].removeprefix("gs://").split("/")[0]
        archive = row["archive"] or "an unnamed archive"
        dates = [f"{row['first_date']} to {row['last_date']}"] if row["first_date"] else []
        dates += [f"{row['dateless']:,} have none"] if row["dateless"] else []
        raise WrongDate(
            rows=row["row_count"],
            dates=", ".join(dates),
            archive=archive,
            object_url=f"gs://{output_bucket}/{archive.removeprefix('gs://')}.jsonl",
            cause=error,
        ) from error
