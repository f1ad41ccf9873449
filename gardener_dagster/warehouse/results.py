"""Results of the operations: what was done and what it cost. Frozen, plain values."""

import datetime as dt
from dataclasses import dataclass

from gardener_dagster.warehouse.names import Partition


@dataclass(frozen=True, kw_only=True)
class BqJob:
    """One finished BigQuery job.

    Attributes:
        kind: load, copy or query.
        url: URL of its page in the Google Cloud console.
        sql: the query, empty for load and copy.
        tries: 1, plus the number of earlier jobs that failed with a transient error.
        waiting_seconds: from its creation to its start.
        running_seconds: from its start to its end.
        slot_seconds: BigQuery's slot time.
        bytes_processed: bytes a query read, or bytes of the objects a load read.
        bytes_billed: bytes billed for a query; load and copy jobs are free.
    """

    id: str
    kind: str
    url: str
    sql: str
    tries: int
    waiting_seconds: float
    running_seconds: float
    slot_seconds: float
    bytes_processed: int
    bytes_billed: int


@dataclass(frozen=True, kw_only=True)
class Result:
    """Base of the operations' results, with sums over the operation's BigQuery jobs.

    Attributes:
        table: the partition worked on, `dataset.table$YYYYMMDD`.
        rows: rows in the partition after the operation.
    """

    operation: str
    table: str
    rows: int
    bq_jobs: tuple[BqJob, ...]

    @property
    def bq_job_ids(self) -> tuple[str, ...]:
        """Ids of the BigQuery jobs, in order."""
        return tuple(job.id for job in self.bq_jobs)

    @property
    def slot_seconds(self) -> float:
        """BigQuery's slot time."""
        return sum(job.slot_seconds for job in self.bq_jobs)

    @property
    def bytes_processed(self) -> int:
        """Bytes read."""
        return sum(job.bytes_processed for job in self.bq_jobs)

    @property
    def bytes_billed(self) -> int:
        """Bytes billed."""
        return sum(job.bytes_billed for job in self.bq_jobs)

    @property
    def waiting_seconds(self) -> float:
        """Seconds the jobs waited for BigQuery to start them."""
        return sum(job.waiting_seconds for job in self.bq_jobs)

    @property
    def running_seconds(self) -> float:
        """Seconds the jobs ran."""
        return sum(job.running_seconds for job in self.bq_jobs)

    @property
    def sql(self) -> str:
        """The queries that were run, in order."""
        return "\n;\n".join(job.sql for job in self.bq_jobs if job.sql)


@dataclass(frozen=True, kw_only=True)
class LoadResult(Result):
    """Result of a load: the tmp partition was replaced with the rows of a parse.

    Attributes:
        objects: number of loaded objects.
        bytes_loaded: their size in bytes.
        added_fields: columns of the data that were added to the tables, as `path TYPE`.
    """

    objects: int
    bytes_loaded: int
    added_fields: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class KeyCount:
    """Numbers of rows, missing keys and duplicates of a partition.

    Attributes:
        rows: rows in the partition.
        keyless: rows whose key is NULL or empty; they do not count as duplicates.
        duplicates: surplus rows: all rows of a key but one.
    """

    rows: int
    keyless: int
    duplicates: int
    bq_jobs: tuple[BqJob, ...] = ()


@dataclass(frozen=True, kw_only=True)
class KeyComparison:
    """The keys of a tmp partition, compared with the published one that it would replace.

    Attributes:
        rows: rows in tmp.
        keyless: rows in tmp whose key is NULL or empty.
        duplicates: surplus rows in tmp: all rows of a key but one.
        ids: distinct values of the key's column `id`, or else of its first column.
        published: rows in the published partition; 0: it is missing or empty.
        published_keyless: rows in the published partition whose key is NULL or empty.
        published_ids: `ids` of the published partition.
        added: keys that only tmp has.
        removed: keys that only the published partition has.
        kept: keys that both have.
    """

    rows: int
    keyless: int
    duplicates: int
    ids: int
    published: int
    published_keyless: int
    published_ids: int
    added: int
    removed: int
    kept: int
    bq_jobs: tuple[BqJob, ...] = ()

    @property
    def published_unique(self) -> int:
        """Rows of the published partition, duplicates not counted."""
        return self.published_keyless + self.removed + self.kept


@dataclass(frozen=True, kw_only=True)
class AnnotationCount:
    """Number of rows of a raw partition that a join would annotate.

    Attributes:
        rows: rows in the raw partition.
        annotated: rows that have an annotation.
        published: rows in the joined partition that would be replaced; 0: it is missing or empty.
    """

    rows: int
    annotated: int
    published: int
    bq_jobs: tuple[BqJob, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Number of rows of a partition that one parser version made from one archive.

    Attributes:
        archive: gs:// URL; empty: the rows have none.
        version: version of the parser; empty: the rows have none.
    """

    archive: str
    version: str
    rows: int


@dataclass(frozen=True, kw_only=True)
class DedupResult(Result):
    """Result of a dedup: the tmp partition has one row per key.

    Attributes:
        keys: comparison of its keys, without duplicates, with the published partition's.
    """

    rows_before: int
    duplicates_removed: int
    keys: KeyComparison


@dataclass(frozen=True, kw_only=True)
class CopyResult(Result):
    """Result of a copy: the raw partition was replaced with the tmp partition.

    Attributes:
        rows_before: rows in raw before the copy; None: an earlier try had already copied.
        warning: what the operator should check although the copy succeeded; empty: nothing.
    """

    rows_before: int | None
    warning: str = ""


@dataclass(frozen=True, kw_only=True)
class DeleteResult(Result):
    """Result of a delete: the tmp partition does not exist any more.

    Attributes:
        existed: whether the partition existed before.
    """

    existed: bool


@dataclass(frozen=True, kw_only=True)
class JoinResult(Result):
    """Result of a join: the joined partition was replaced, or there was nothing to join.

    Attributes:
        annotations: annotation rows of the date.
        annotations_before: annotation rows of the day before.
        skipped: why nothing was joined; empty: rows were joined.
    """

    annotations: int
    annotations_before: int
    skipped: str = ""


@dataclass(frozen=True, kw_only=True)
class TmpPartition:
    """A tmp partition and when it was last written to."""

    partition: Partition
    last_modified: dt.datetime


@dataclass(frozen=True, kw_only=True)
class TableVersion:
    """A table, in its current or a past state.

    Attributes:
        table: `dataset.table`.
        as_of: time of the state, aware; None: now. BigQuery keeps past states for seven days.
    """

    table: str
    as_of: dt.datetime | None = None

    def __str__(self) -> str:
        return f"{self.table} as of {self.as_of:%Y-%m-%d %H:%M:%S %Z}" if self.as_of else self.table


@dataclass(frozen=True, kw_only=True)
class KeyDiff:
    """Difference between two versions of a partition, by the keys of their rows.

    Attributes:
        rows_before: rows of the version before.
        rows_after: rows of the version after.
        keyless_before: rows before whose key is NULL or empty; they cannot be compared.
        keyless_after: rows after whose key is NULL or empty.
        in_both: number of keys that both versions have.
        added: number of keys that only the version after has.
        removed: number of keys that only the version before has.
    """

    date: dt.date
    rows_before: int = 0
    rows_after: int = 0
    keyless_before: int = 0
    keyless_after: int = 0
    in_both: int = 0
    added: int = 0
    removed: int = 0

    @property
    def same(self) -> bool:
        """Whether both versions have the same number of rows and the same keys."""
        return (self.rows_before, self.keyless_before) == (
            self.rows_after,
            self.keyless_after,
        ) and not (self.added or self.removed)


@dataclass(frozen=True, kw_only=True)
class ColumnDiff:
    """Comparison by columns of the rows that two versions of a partition share.

    Attributes:
        compared: rows whose key occurs exactly once in each version.
        differing: compared rows that differ in at least one column.
        columns: number of differing rows of each column that differs.
    """

    date: dt.date
    compared: int = 0
    differing: int = 0
    columns: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class DifferingRow:
    """A row that differs between the two versions.

    Attributes:
        key: the parts of its key.
        columns: each column that differs, with its value before and after, as JSON.
    """

    date: dt.date
    key: tuple[str, ...]
    columns: dict[str, tuple[str, str]]
