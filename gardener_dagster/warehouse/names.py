"""Names: tables, partitions, BigQuery job ids, labels, links.

Pure: no I/O, no google imports. `identifier`, `column_path` and `project_id` check every name that
is put into SQL.
"""

import datetime as dt
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,299}")
_PROJECT = re.compile(r"[a-z0-9][a-z0-9.:-]{0,62}")
_LABEL_MAXIMUM = 63
_JOB_ID_MAXIMUM = 1024

ONE_DAY = dt.timedelta(days=1)


def identifier(name: str, *, what: str) -> str:
    """Return the name of a dataset, table or column if it is valid in SQL between backticks.

    Raises:
        ValueError: it is not letters, digits and underscores, or begins with a digit.
    """
    if not _IDENTIFIER.fullmatch(name):
        raise ValueError(f"{what}: {name!r} is not letters, digits and underscores")
    return name


def column_path(path: str) -> str:
    """Quote a column or a field of a record, like `parser.Filename`, for SQL.

    Raises:
        ValueError: a part of the path is not an identifier.
    """
    return ".".join(f"`{identifier(part, what=f'column {path}')}`" for part in path.split("."))


def project_id(project: str) -> str:
    """Return the id of a Google Cloud project if it is valid in SQL between backticks.

    Raises:
        ValueError: it is not a project id.
    """
    if not _PROJECT.fullmatch(project):
        raise ValueError(f"project: {project!r} is not the id of a Google Cloud project")
    return project


def quoted_table(project: str, table_id: str) -> str:
    """Return `project.dataset.table` in backticks.

    Raises:
        ValueError: a part of it is not a valid name.
    """
    dataset, _, table = table_id.partition(".")
    identifier(dataset, what="dataset")
    identifier(table, what=f"table of {dataset}")
    return f"`{project_id(project)}.{table_id}`"


@dataclass(frozen=True, kw_only=True)
class Partition:
    """One date of one table."""

    dataset: str
    table: str
    date: dt.date

    @property
    def table_id(self) -> str:
        """The table it belongs to, `dataset.table`."""
        return f"{self.dataset}.{self.table}"

    @property
    def id(self) -> str:
        """`dataset.table$YYYYMMDD`, BigQuery's notation for a partition."""
        return f"{self.table_id}${self.date:%Y%m%d}"

    def __str__(self) -> str:
        return self.id


@dataclass(frozen=True, kw_only=True)
class SourceTables:
    """The tables of one source: its datasets, and the annotations that it is joined with.

    Attributes:
        tmp: dataset of the tables that load jobs write.
        raw: dataset of the finished tables.
        joined: dataset of the annotated tables; empty: this source is not joined.
        annotations: datatype whose table in `raw` has the annotations.
    """

    experiment: str
    datatype: str
    tmp: str
    raw: str
    joined: str = ""
    annotations: str = "annotation2"

    def __post_init__(self) -> None:
        for what in ("datatype", "tmp", "raw"):
            identifier(getattr(self, what), what=what)
        if self.joined:
            identifier(self.joined, what="joined")
            identifier(self.annotations, what="annotations")

    def tmp_partition(self, date: dt.date) -> Partition:
        """Return the partition that load jobs write."""
        return Partition(dataset=self.tmp, table=self.datatype, date=date)

    def raw_partition(self, date: dt.date) -> Partition:
        """Return the partition with the finished rows."""
        return Partition(dataset=self.raw, table=self.datatype, date=date)

    def joined_partition(self, date: dt.date) -> Partition:
        """Return the partition with the annotated rows.

        Raises:
            ValueError: the source is not joined.
        """
        if not self.joined:
            raise ValueError(f"{self.experiment}/{self.datatype} has no join dataset")
        return Partition(dataset=self.joined, table=self.datatype, date=date)

    def annotations_partition(self, date: dt.date) -> Partition:
        """Return the partition with one date's annotations."""
        return Partition(dataset=self.raw, table=self.annotations, date=date)


def unguarded() -> None:
    """Never raise; the default guard."""


@dataclass(frozen=True, kw_only=True)
class JobContext:
    """The run and date of an operation, and the ids of its BigQuery jobs.

    Attributes:
        run_id: the Dagster run; it becomes a label of the BigQuery jobs.
        date: the date of the partitions.
        attempt: number of the attempt, from 1. A new number makes new BigQuery job ids.
        seed: part of the BigQuery job ids. Two contexts with the same seed and attempt do the same
            work: the second finds the jobs of the first, waits for a running one, and does not
            reuse the ids of ended ones. So it must stay the same when a run is re-executed, and
            change when the date is parsed again. Empty: the `run_id`.
        guard: raises an exception if the work must stop, for example because another run has taken
            over the partition. It is called before each call that changes something, at each poll
            of a BigQuery job, and before each retry. Its exception ends the operation, which first
            cancels the BigQuery job it waits for.
    """

    run_id: str
    date: dt.date
    attempt: int = 1
    seed: str = ""
    guard: Callable[[], None] = field(default=unguarded, compare=False, repr=False)

    def job_id(self, step: str, partition: Partition) -> str:
        """Return the id of the BigQuery job that does a step on a partition.

        At most 1,024 letters, digits, `_` and `-`:
        https://cloud.google.com/bigquery/docs/running-jobs#generate-jobid
        """
        table = f"{partition.dataset}-{partition.table}-{partition.date:%Y%m%d}"
        job_id = f"gardener-{step}-{table}-{self._seed()}-{self.attempt}"
        if len(job_id) > _JOB_ID_MAXIMUM - 32:  # room for the suffixes of retries
            digest = hashlib.sha256(job_id.encode()).hexdigest()
            job_id = f"{job_id[: _JOB_ID_MAXIMUM - 32 - len(digest) - 1]}-{digest}"
        return job_id

    def has_seed(self, job_id: str) -> bool:
        """Return whether a BigQuery job id has the same seed, so belongs to the same work."""
        return f"-{self._seed()}-" in job_id

    def _seed(self) -> str:
        name = self.seed or self.run_id
        seed = re.sub(r"[^A-Za-z0-9_-]", "_", name)
        if seed != name:  # keeps different seeds different
            seed += "_" + hashlib.sha256(name.encode()).hexdigest()[:8]
        return seed


def labels(tables: SourceTables, ctx: JobContext, operation: str) -> dict[str, str]:
    """Return the labels of a BigQuery job: lower case, at most 63 characters.

    https://cloud.google.com/bigquery/docs/labels-intro#requirements
    """
    values = {
        "experiment": tables.experiment,
        "datatype": tables.datatype,
        "date": f"{ctx.date:%Y%m%d}",
        "operation": operation,
        "run": ctx.run_id,
    }
    return {
        key: re.sub(r"[^a-z0-9_-]", "_", value.lower())[:_LABEL_MAXIMUM]
        for key, value in values.items()
    }


@dataclass(frozen=True, kw_only=True)
class Step:
    """One operation on one partition, for job ids, labels and errors.

    Attributes:
        operation: load, dedup, copy, delete, join, or another one such as survey.
        partition: the partition that is written or read.
    """

    operation: str
    tables: SourceTables
    ctx: JobContext
    partition: Partition

    def job_id(self, part: str = "") -> str:
        """Return the id of the BigQuery job that does this step, or a part of it."""
        return self.ctx.job_id(
            f"{self.operation}-{part}" if part else self.operation, self.partition
        )

    @property
    def labels(self) -> dict[str, str]:
        """The labels of the step's BigQuery jobs."""
        return labels(self.tables, self.ctx, self.operation)


def job_url(project: str, location: str, job_id: str) -> str:
    """Return the URL of a BigQuery job's page in the Google Cloud console."""
    return (
        f"https://console.cloud.google.com/bigquery?project={project}&j=bq:{location}:{job_id}"
        "&page=queryresults"
    )


def table_url(project: str, table_id: str) -> str:
    """Return the URL of a table's page in the Google Cloud console."""
    dataset, _, table = table_id.partition(".")
    return f"https://console.cloud.google.com/bigquery?project={project}&p={project}&d={dataset}&t={table}&page=table"
