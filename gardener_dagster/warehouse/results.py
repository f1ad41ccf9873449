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
        null_keys: rows without a key, all kept.
        rewritten: False where there was nothing to remove, so only the key columns were read.
    """

    rows_before: int
    duplicates_removed: int
    null_keys: int
    rewritten: bool


@dataclass(frozen=True, kw_only=True)
class CopyResult(Result):
    """A raw partition was replaced by the tmp partition.

    Attributes:
        rows_before: rows that raw had; None where the copy of an earlier try was found done.
    """

    rows_before: int | None


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
        annotated: rows that found their annotation.
        annotations: rows of annotations of the date itself.
        annotations_before: rows of annotations of the day before.
        skipped: why nothing was joined; empty where something was.
    """

    annotated: int
    annotations: int
    annotations_before: int
    skipped: str = ""


@dataclass(frozen=True, kw_only=True)
class TmpPartition:
    """A tmp partition and when it was last written to."""

    partition: Partition
    last_modified: dt.datetime
