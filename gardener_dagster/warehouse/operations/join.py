"""Joins a date's rows with their annotations."""

from collections.abc import Sequence

from gardener_dagster.warehouse.engine import Engine, Parameter
from gardener_dagster.warehouse.errors import AnnotationsMissing, RefusedJoin, WrongRowCount
from gardener_dagster.warehouse.names import ONE_DAY, Step, quoted_table
from gardener_dagster.warehouse.operations.survey import Survey
from gardener_dagster.warehouse.operations.tables import Tables
from gardener_dagster.warehouse.queries import query
from gardener_dagster.warehouse.results import BqJob, JoinResult
from gardener_dagster.warehouse.table_schemas import joined_schema, schema_of


class Joiner:
    """The join operation."""

    def __init__(self, engine: Engine, tables: Tables, survey: Survey) -> None:
        self._engine, self._tables, self._survey = engine, tables, survey

    def join(self, step: Step, *, annotations_known_empty: bool, may_empty: bool) -> JoinResult:
        """Replace the joined partition with the raw rows and their annotations."""
        tables, date = step.tables, step.ctx.date
        raw, joined = tables.raw_partition(date), step.partition
        annotations = tables.annotations_partition(date)
        before = tables.annotations_partition(date - ONE_DAY)
        [raw_rows, joined_rows, *annotation_rows] = self._survey.count_rows(
            tables, [raw, joined, annotations, before], step.ctx
        )
        if not raw_rows:
            return self._join_nothing(step, joined_rows, annotation_rows, may_empty=may_empty)
        if not annotation_rows[0] and not annotations_known_empty:
            raise AnnotationsMissing(
                f"its annotations {annotations} were never made",
                partition=annotations.id,
                table=joined.id,
                advice=f"materialize {tables.raw}/{tables.annotations} of {date};"
                " the sensor joins then makes this join",
            )
        self._ensure_tables(step)
        parameters = [Parameter("date", "DATE", date)]
        sql = query(
            "join",
            annotations=quoted_table(self._engine.project, annotations.table_id),
            raw=quoted_table(self._engine.project, raw.table_id),
        )
        _, done = self._engine.query(step, sql, parameters, destination=joined, may_add_fields=True)
        [rows] = self._survey.count_rows(tables, [joined], step.ctx)
        if rows != raw_rows:
            raise WrongRowCount(
                f"it has {rows:,} rows, {raw} had {raw_rows:,}:"
                " raw was replaced while it was joined",
                operation=step.operation,
                table=joined.id,
                bq_job_id=done.id,
                bq_job_url=done.url,
                advice="run the join again",
            )
        return self._result(step, raw_rows, annotation_rows, (done,))

    def _join_nothing(
        self, step: Step, joined_rows: int, annotation_rows: Sequence[int], *, may_empty: bool
    ) -> JoinResult:
        raw = step.tables.raw_partition(step.ctx.date)
        if joined_rows and not may_empty:
            raise RefusedJoin(
                f"{raw} has no rows, but the joined partition has {joined_rows:,}, which stay",
                operation=step.operation,
                table=step.partition.id,
                advice=f"materialize {raw} again;"
                " to empty the joined partition nonetheless,"
                " run it with the tag gardener/may_empty: true",
            )
        if joined_rows:
            self._tables.delete_partition(step, step.partition)
            return self._result(step, 0, annotation_rows, skipped=f"{raw} has no rows: emptied")
        return self._result(
            step,
            0,
            annotation_rows,
            skipped=f"{raw} was never made or has no rows: nothing to join",
        )

    def _ensure_tables(self, step: Step) -> None:
        tables, date = step.tables, step.ctx.date
        annotations = tables.annotations_partition(date).table_id
        # The query needs the annotations' columns, even if no annotation was ever parsed.
        of_annotations = self._tables.ensure(step, annotations, schema_of(tables.annotations))
        of_raw = self._tables.schema(step, tables.raw_partition(date).table_id)
        self._tables.ensure(step, step.partition.table_id, joined_schema(of_annotations, of_raw))

    @staticmethod
    def _result(
        step: Step,
        rows: int,
        annotation_rows: Sequence[int],
        bq_jobs: tuple[BqJob, ...] = (),
        *,
        skipped: str = "",
    ) -> JoinResult:
        return JoinResult(
            operation=step.operation,
            table=step.partition.id,
            rows=rows,
            bq_jobs=bq_jobs,
            annotations=annotation_rows[0],
            annotations_before=annotation_rows[1],
            skipped=skipped,
        )
