"""Load jobs: objects of JSON lines replace the rows of a table or partition.

https://cloud.google.com/bigquery/docs/loading-data-cloud-storage-json. The objects are read in
batches into a staging table, so the memory needed does not grow with the data. DuckDB converts a
batch (``json_lines``); where it fails, the batch is read row by row (``rows``).
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from gardener_dagster.local.bigquery.catalog.database import Connection
from gardener_dagster.local.bigquery.catalog.partitions import content
from gardener_dagster.local.bigquery.catalog.schema import Fields, column_list
from gardener_dagster.local.bigquery.catalog.table import Resource
from gardener_dagster.local.bigquery.catalog.writes import Write
from gardener_dagster.local.bigquery.errors import (
    BigQueryError,
    invalid,
    not_implemented,
    refuse_keys,
)
from gardener_dagster.local.bigquery.jobs.task import Task
from gardener_dagster.local.bigquery.loading import json_lines
from gardener_dagster.local.bigquery.loading.autodetect import SAMPLE_ROWS, detect
from gardener_dagster.local.bigquery.loading.objects import File, Storage, check_uris
from gardener_dagster.local.bigquery.loading.rows import RowError, RowReader, parsed

_BATCH_BYTES = 64 * 2**20
_BATCH_FILES = 200
_UNSUPPORTED = ("schema", "maxBadRecords", "schemaUpdateOptions", "timePartitioning")


class LoadWork:
    """The implementation of load jobs.

    Args:
        storage: client to read the objects.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def check(self, configuration: Resource, project: str) -> None:
        """Refuse an invalid job: see `Work.check`.

        Raises:
            BigQueryError: a URI is invalid, or an option or the format is not supported.
        """
        check_uris(configuration.get("sourceUris") or ())
        refuse_keys(configuration, _UNSUPPORTED, "a load job")
        Write.of(configuration, project=project)
        source = configuration.get("sourceFormat") or "CSV"
        if source != "NEWLINE_DELIMITED_JSON":
            raise not_implemented(f"a load job of {source}")

    def run(self, task: Task) -> None:
        """Load the objects.

        Raises:
            BigQueryError: objects are missing or invalid, or the rows do not fit the destination.
        """
        configuration = task.configuration["load"]
        write = Write.of(configuration, project=task.project)
        with task.database.reading() as connection:
            known = write.table(connection, task.catalog).fields
        with (
            task.database.staging() as store,
            TemporaryDirectory(dir=task.database.scratch) as folder,
        ):
            loader = _Loader(task, store, Path(folder), configuration, known)
            loader.load(self._storage.files(configuration.get("sourceUris") or (), Path(folder)))
            with task.writing() as connection:
                made = write.apply(connection, task.catalog, store, loader.fields, task.now())
                size = content(connection, made, write.destination.partition).bytes
                loader.report(output_bytes=size)


class _Loader:
    """Loads files into the staging table of a job.

    Attributes:
        fields: the schema of the rows.
    """

    def __init__(
        self, task: Task, store: str, folder: Path, configuration: Resource, known: Fields
    ) -> None:
        self._task, self._store, self._folder = task, store, folder
        self._detects = bool(configuration.get("autodetect"))
        self._ignore_unknown = bool(configuration.get("ignoreUnknownValues"))
        self._files = self._bytes = self._rows = 0
        self.fields: Fields = () if self._detects else known
        if not known and not self._detects:
            raise invalid("No schema specified on job or table.")

    def load(self, files: Iterator[File]) -> None:
        """Load all files, in batches.

        Raises:
            BigQueryError: a row is invalid, or the schema cannot be detected.
        """
        with self._task.database.cursor() as cursor, self._task.cancellable(cursor):
            if not self._detects:
                self._create(cursor)
            for batch in self._batches(files):
                if not self.fields:
                    self.fields = detect(_sample(batch))
                    self._create(cursor)
                self._load_batch(cursor, batch)
                for file in batch:
                    file.path.unlink()
                self._task.check()
            if not self.fields:
                self.fields = detect([])  # raises: there are no rows

    def _create(self, cursor: Connection) -> None:
        cursor.execute(f"CREATE TABLE {self._store} ({column_list(self.fields)})")

    def report(self, *, output_bytes: int) -> None:
        """Record the counts in the job's statistics."""
        self._task.record(
            load={
                "inputFiles": str(self._files),
                "inputFileBytes": str(self._bytes),
                "outputRows": str(self._rows),
                "outputBytes": str(output_bytes),
                "badRecords": "0",
            },
            totalBytesProcessed=str(self._bytes),
        )

    def _batches(self, files: Iterator[File]) -> Iterator[list[File]]:
        batch: list[File] = []
        for file in files:
            batch.append(file)
            self._files += 1
            self._bytes += file.size
            size = sum(one.size for one in batch)
            if size >= _BATCH_BYTES or len(batch) >= _BATCH_FILES:
                yield batch
                batch = []
        if batch:
            yield batch

    def _load_batch(self, cursor: Connection, batch: Sequence[File]) -> None:
        try:
            self._insert([file.path for file in batch], cursor)
        except (json_lines.Unclear, duckdb.InvalidInputException, duckdb.ConversionException,
                duckdb.OutOfRangeException):  # fmt: skip
            # Read row by row: report an invalid row as BigQuery does, or convert the valid rows.
            path = self._folder / "rows.jsonl"
            if self._convert_rows(batch, path):
                self._insert([path], cursor, json_lines.shape_of(self.fields))

    def _insert(self, paths: list[Path], cursor: Connection, shape: Any = None) -> None:  # noqa: ANN401 - a Shape
        lines = json_lines.source(paths)
        if shape is None:
            found = cursor.execute(json_lines.structures_query(lines)).fetchall()
            if not found:
                return
            shape = json_lines.common_shape(text for (text,) in found)
        sql = json_lines.insert(
            self._store, lines, self.fields, shape, ignore_unknown=self._ignore_unknown
        )
        [count] = cursor.execute(sql).fetchone() or (0,)
        self._rows += int(count)

    def _convert_rows(self, batch: Sequence[File], path: Path) -> int:
        """Convert the rows, and write them to a file that ``_insert`` can load.

        Returns:
            The number of rows.
        """
        reader = RowReader(self.fields, ignore_unknown=self._ignore_unknown)
        count = 0
        with path.open("w", encoding="utf-8") as out:
            for file in batch:
                for position, line in _lines(file.path):
                    try:
                        row = reader.read(line)
                    except RowError as error:
                        raise invalid(
                            "Error while reading data, error message: JSON table encountered too"
                            f" many errors, giving up. Rows: {self._rows + count + 1}; errors: 1."
                            " Please look into the errors[] collection for more details."
                            f" File: {file.uri}",
                            location=file.uri,
                            details=[_row_error(file, position, error)],
                        ) from error
                    out.write(json.dumps(row) + "\n")
                    count += 1
                self._task.check()
        return count


def _row_error(file: File, position: int, error: RowError) -> BigQueryError:
    return invalid(
        "Error while reading data, error message: JSON parsing error in row starting at"
        f" position {position}: {error} File: {file.uri}",
        location=file.uri,
    )


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file that are not blank, each with its position in bytes."""
    position = 0
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                yield position, line
            position += len(line)


def _sample(batch: Sequence[File]) -> Iterator[dict[str, Any]]:
    count = 0
    for file in batch:
        for position, line in _lines(file.path):
            try:
                yield parsed(line)
            except RowError as error:
                raise _row_error(file, position, error) from error
            count += 1
            if count == SAMPLE_ROWS:
                return
