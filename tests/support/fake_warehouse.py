"""BigQuery's tables and Cloud Storage's objects in memory, for tests of what steps make of them.

The operations do what `warehouse.operations` promises: each replaces one partition as a whole. A
hook before each may fail, wait or kill; tests of the operations themselves use the local BigQuery.
"""

import datetime as dt
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar

from gardener_dagster.resources import GCSResource, WarehouseResource
from gardener_dagster.warehouse.errors import AnnotationsMissing, RefusedCopy
from gardener_dagster.warehouse.names import JobContext, Partition, SourceTables
from gardener_dagster.warehouse.objects import LoadSource
from gardener_dagster.warehouse.results import (
    AnnotationCount,
    CopyResult,
    DedupResult,
    DeleteResult,
    JoinResult,
    KeyComparison,
    KeyCount,
    LoadResult,
    Origin,
)

Hook = Callable[[str, dt.date, JobContext], None]
"""Gets the operation's name, the date and the context; what it raises ends the operation."""


@dataclass
class FakeTables:
    """The tables, and what parsers wrote: ids of rows, by datatype and date."""

    parsed: dict[tuple[str, dt.date], list[str]] = field(default_factory=dict)
    rows: dict[str, list[str]] = field(default_factory=dict)  # by partition
    log: list[tuple[str, dt.date]] = field(default_factory=list)  # operations that were done
    taken_from: list[str] = field(default_factory=list)  # runs that are gone
    hook: Hook = lambda operation, date, context: None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def survey(self) -> "FakeTables":
        return self

    def _begin(self, operation: str, ctx: JobContext) -> None:
        ctx.guard()
        self.hook(operation, ctx.date, ctx)
        ctx.guard()

    def _end(self, operation: str, ctx: JobContext, partition: Partition, ids: list[str]) -> None:
        with self._lock:
            if ids:
                self.rows[partition.id] = ids
            else:
                self.rows.pop(partition.id, None)
            self.log.append((operation, ctx.date))

    def of(self, partition: Partition) -> list[str]:
        return self.rows.get(partition.id, [])

    def cancel_unfinished(self, tables: SourceTables, ctx: JobContext, *, run_id: str) -> None:
        self.taken_from.append(run_id)

    def load(self, tables: SourceTables, source: LoadSource, ctx: JobContext) -> LoadResult:
        self._begin("load", ctx)
        ids = list(self.parsed[tables.datatype, ctx.date]) if source.uris else []
        tmp = tables.tmp_partition(ctx.date)
        self._end("load", ctx, tmp, ids)
        return LoadResult(
            operation="load", table=tmp.id, rows=len(ids), bq_jobs=(), objects=1, bytes_loaded=9
        )

    def dedup(self, tables: SourceTables, key: Sequence[str], ctx: JobContext) -> DedupResult:
        self._begin("dedup", ctx)
        tmp = tables.tmp_partition(ctx.date)
        before = self.of(tmp)
        ids = sorted(set(before))
        self._end("dedup", ctx, tmp, ids)
        return DedupResult(
            operation="dedup",
            table=tmp.id,
            rows=len(ids),
            bq_jobs=(),
            rows_before=len(before),
            duplicates_removed=len(before) - len(ids),
            keys=self.compare_keys(tables, ctx),
        )

    def copy(
        self,
        tables: SourceTables,
        ctx: JobContext,
        *,
        parse_had_no_files: bool,
        may_empty: bool = False,
        already_copied: bool = False,
        rows_loaded: int | None = None,
    ) -> CopyResult:
        self._begin("copy", ctx)
        raw = tables.raw_partition(ctx.date)
        before: int | None = len(self.of(raw))
        ids = self.of(tables.tmp_partition(ctx.date))
        if not ids:
            if not already_copied:
                raise RefusedCopy("tmp has no rows", operation="copy", table=raw.id, advice="none")
            ids, before = self.of(raw), None
        self._end("copy", ctx, raw, ids)
        return CopyResult(
            operation="copy", table=raw.id, rows=len(ids), bq_jobs=(), rows_before=before
        )

    def delete(self, tables: SourceTables, ctx: JobContext) -> DeleteResult:
        self._begin("delete", ctx)
        tmp = tables.tmp_partition(ctx.date)
        existed = tmp.id in self.rows
        self._end("delete", ctx, tmp, [])
        return DeleteResult(operation="delete", table=tmp.id, rows=0, bq_jobs=(), existed=existed)

    def join(
        self,
        tables: SourceTables,
        ctx: JobContext,
        *,
        annotations_known_empty: bool,
        may_empty: bool = False,
    ) -> JoinResult:
        self._begin("join", ctx)
        joined, annotations = (
            tables.joined_partition(ctx.date),
            tables.annotations_partition(ctx.date),
        )
        if not self.of(annotations) and not annotations_known_empty:
            raise AnnotationsMissing(
                f"its annotations {annotations} were never made",
                partition=annotations.id,
                table=joined.id,
                advice="materialize them",
            )
        ids = self.of(tables.raw_partition(ctx.date))
        self._end("join", ctx, joined, list(ids))
        return JoinResult(
            operation="join",
            table=joined.id,
            rows=len(ids),
            bq_jobs=(),
            annotations=len(self.of(annotations)),
            annotations_before=0,
        )

    def origins(
        self, tables: SourceTables, partition: Partition, ctx: JobContext
    ) -> tuple[Origin, ...]:
        archive = f"gs://archive-mlab/ndt/{tables.datatype}/{ctx.date:%Y/%m/%d}/a.tgz"
        rows = len(self.of(partition))
        return (Origin(archive=archive, version="v1", rows=rows),) if rows else ()

    def compare_keys(self, tables: SourceTables, ctx: JobContext) -> KeyComparison:
        staged, published = (
            self.of(partition)
            for partition in (tables.tmp_partition(ctx.date), tables.raw_partition(ctx.date))
        )
        new, old = set(staged), set(published)
        return KeyComparison(
            rows=len(staged),
            keyless=0,
            duplicates=len(staged) - len(new),
            ids=len(new),
            published=len(published),
            published_keyless=0,
            published_ids=len(old),
            added=len(new - old),
            removed=len(old - new),
            kept=len(new & old),
        )

    def count_annotated(self, tables: SourceTables, ctx: JobContext) -> AnnotationCount:
        ids = self.of(tables.raw_partition(ctx.date))
        annotations = set(self.of(tables.annotations_partition(ctx.date)))
        return AnnotationCount(
            rows=len(ids),
            annotated=sum(each in annotations for each in ids),
            published=len(self.of(tables.joined_partition(ctx.date))),
        )

    def count_rows(
        self, tables: SourceTables, partitions: Sequence[Partition], ctx: JobContext
    ) -> list[int]:
        return [len(self.of(partition)) for partition in partitions]

    def count_keys(
        self, tables: SourceTables, partition: Partition, key: Sequence[str], ctx: JobContext
    ) -> KeyCount:
        ids = self.of(partition)
        return KeyCount(rows=len(ids), keyless=0, duplicates=len(ids) - len(set(ids)))

    def list_blobs(self, bucket: str, *, prefix: str, **_: Any) -> Iterator[SimpleNamespace]:
        """As Cloud Storage's client: an archive a date, and an object of it."""
        for datatype, date in list(self.parsed):
            name = f"ndt/{datatype}/{date:%Y/%m/%d}/a.tgz"
            if bucket != "archive-mlab":
                name = f"archive-mlab/{name}.jsonl"
            if name.startswith(prefix):
                now = dt.datetime.now(dt.UTC)
                yield SimpleNamespace(name=name, size=1, updated=now, time_created=now, metadata={})


FAKES: dict[str, FakeTables] = {}
"""By name: Dagster makes resources anew for each run, from their fields."""


class FakeWarehouse(WarehouseResource):
    """The operations on the fake that it names."""

    fake: str

    @property
    def tables(self) -> Any:
        return FAKES[self.fake]


class FakeGcs(GCSResource):
    """The objects of the fake that it names."""

    fake: str
    known: ClassVar[dict[str, FakeTables]] = FAKES

    @property
    def client(self) -> Any:
        return FAKES[self.fake]
