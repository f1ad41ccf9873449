"""What the operations return: what was done, and what it cost. Frozen, plain values."""

import datetime as dt
from dataclasses import dataclass

from gardener_dagster.warehouse.names import Partition


@dataclass(frozen=True, kw_only=True)
class BqJob:
    """One finished BigQuery job.

    Attributes:
        kind: load, copy or query.
        url: its page in the Google Cloud console.
        sql: the query, empty for load and copy.
        tries: 1, and one more for each job that failed for a passing reason before it.
        waiting_seconds: from its creation to its start.
        running_seconds: from its start to its end.
        slot_seconds: time of BigQuery's workers.
        bytes_processed: bytes a query read, or bytes of the objects a load read.
        bytes_billed: bytes of a query that are paid for; load and copy jobs are free.
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
    """Common to all operations: sums over the BigQuery jobs it took.

    Attributes:
        table: the partition worked on, `dataset.table$YYYYMMDD`.
        rows: rows in it afterwards.
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
        """Time of BigQuery's workers."""
        return sum(job.slot_seconds for job in self.bq_jobs)

    @property
    def bytes_processed(self) -> int:
        """Bytes read."""
        return sum(job.bytes_processed for job in self.bq_jobs)

    @property
    def bytes_billed(self) -> int:
        """Bytes paid for."""
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
    """A tmp partition was replaced by the rows of a parse.

    Attributes:
        objects: how many were loaded.
        bytes_loaded: their size.
        added_fields: columns the data had and the tables had not, as `path TYPE`.
    """

    objects: int
    bytes_loaded: int
    added_fields: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class KeyCount:
    """How unique the keys of a partition are.

    Attributes:
        rows: rows in the partition.
        keyless: rows whose key is NULL or empty; they are nobody's duplicate.
        duplicates: rows that share their key with another and are too many.
    """

    rows: int
    keyless: int
    duplicates: int
    bq_jobs: tuple[BqJob, ...] = ()


@dataclass(frozen=True, kw_only=True)
class KeyComparison:
    """A partition of tmp, against the published one that it would replace.

    Attributes:
        rows: rows in tmp.
        keyless: those whose key is NULL or empty.
        duplicates: those that share their key with another and are too many.
        ids: different values of the key's id column, or of its first column.
        published: rows in the published partition; 0: there is none.
        published_keyless: those whose key is NULL or empty.
        published_ids: as `ids`, in the published partition.
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
    """How many rows of a raw partition a join would annotate.

    Attributes:
        rows: rows in it.
        annotated: those that would find their annotation.
        published: rows in the joined partition that would be replaced; 0: there is none.
    """

    rows: int
    annotated: int
    published: int
    bq_jobs: tuple[BqJob, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Rows of a partition that one parser version made of one archive.

    Attributes:
        archive: gs:// URL; empty: the rows do not say.
        version: of the parser; empty: the rows do not say.
    """

    archive: str
    version: str
    rows: int


@dataclass(frozen=True, kw_only=True)
class DedupResult(Result):
    """A tmp partition has one row per key.

    Attributes:
        keys: of it, and of the published partition that it would replace.
    """

    rows_before: int
    duplicates_removed: int
    keys: KeyComparison


@dataclass(frozen=True, kw_only=True)
class CopyResult(Result):
    """A raw partition was replaced by the tmp partition.

    Attributes:
        rows_before: rows that raw had; None where an earlier try had copied already.
        warning: what a person should look at, though the operation succeeded; empty: nothing.
    """

    rows_before: int | None
    warning: str = ""


@dataclass(frozen=True, kw_only=True)
class DeleteResult(Result):
    """A tmp partition is gone.

    Attributes:
        existed: whether it was there.
    """

    existed: bool


@dataclass(frozen=True, kw_only=True)
class JoinResult(Result):
    """A joined partition was replaced, or there was nothing to join.

    Attributes:
        annotations: rows of annotations of the date itself.
        annotations_before: rows of annotations of the day before.
        skipped: why nothing was joined; empty where something was.
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
    """A table as it is, or as it was.

    Attributes:
        table: `dataset.table`.
        as_of: when, aware; None: now. BigQuery keeps what was for seven days.
    """

    table: str
    as_of: dt.datetime | None = None

    def __str__(self) -> str:
        return f"{self.table} as of {self.as_of:%Y-%m-%d %H:%M:%S %Z}" if self.as_of else self.table


@dataclass(frozen=True, kw_only=True)
class KeyDiff:
    """What is different between two versions of a partition, by the keys of its rows.

    Attributes:
        rows_before: rows of the one version.
        rows_after: rows of the other.
        keyless_before: rows of the one whose key is NULL or empty; they cannot be compared.
        keyless_after: the same of the other.
        in_both: keys that both have.
        added: keys that only the other has.
        removed: keys that only the one has.
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
        """Whether both have as many rows, of the same keys."""
        return (self.rows_before, self.keyless_before) == (
            self.rows_after,
            self.keyless_after,
        ) and not (self.added or self.removed)


@dataclass(frozen=True, kw_only=True)
class ColumnDiff:
    """Rows of a partition that two versions both have, compared by columns.

    Attributes:
        compared: rows whose key stands once in each version.
        differing: those that differ in any of the columns.
        columns: in how many rows each column differs, where it does.
    """

    date: dt.date
    compared: int = 0
    differing: int = 0
    columns: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class DifferingRow:
    """A row that is not the same in both versions.

    Attributes:
        key: the parts of its key.
        columns: each column that differs, with its value before and after, as JSON.
    """

    date: dt.date
    key: tuple[str, ...]
    columns: dict[str, tuple[str, str]]
