"""Load jobs: JSON lines into a table.

https://cloud.google.com/bigquery/docs/loading-data-cloud-storage-json. The lines go batch by batch
into a table of the job's own, in DuckDB (``ndjson``), or, where that finds anything wrong or
unclear, row by row (``rows``). So memory does not grow with the data, and an error changes nothing.
"""

import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from gardener_dagster.local.bigquery import ndjson
from gardener_dagster.local.bigquery.autodetect import SAMPLE_ROWS, detect
from gardener_dagster.local.bigquery.database import Connection
from gardener_dagster.local.bigquery.errors import BigQueryError, invalid, not_implemented
from gardener_dagster.local.bigquery.objects import File, Storage, check_uris, decompressed
from gardener_dagster.local.bigquery.partitions import content
from gardener_dagster.local.bigquery.rows import MAXIMUM_ROW_BYTES, RowError, RowReader, parsed
from gardener_dagster.local.bigquery.schema import Fields, column_list, from_json
from gardener_dagster.local.bigquery.tables import Resource
from gardener_dagster.local.bigquery.task import Task
from gardener_dagster.local.bigquery.writes import APPEND, Write

_BATCH_BYTES = 64 * 2**20
_BATCH_FILES = 200
_USUAL_ROW_BYTES = 16 * 2**20  # DuckDB keeps room for two such rows a thread
_SHOWN_ERRORS = 5


@dataclass(kw_only=True)
class _Count:
    files: int = 0
    bytes: int = 0
    rows: int = 0
    bad: list[BigQueryError] = field(default_factory=list)


class LoadWork:
    """What load jobs do.

    Args:
        storage: where the objects are.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def check(self, configuration: Resource, project: str) -> None:
        """Refuses what BigQuery refuses before there is a job.

        Raises:
            BigQueryError: too many URIs, options that do not go together, another format.
        """
        check_uris(configuration.get("sourceUris") or ())
        Write.of(configuration, project=project, disposition=APPEND)
        source = configuration.get("sourceFormat") or "CSV"
        if source != "NEWLINE_DELIMITED_JSON":
            raise not_implemented(f"Loading {source}")
        if (configuration.get("schema") or {}).get("fields"):
            from_json(configuration["schema"]["fields"])

    def run(self, task: Task) -> None:
        """Loads.

        Raises:
            BigQueryError: the data are not there or not right, or the destination refuses them.
        """
        configuration = task.configuration["load"]
        write = Write.of(configuration, project=task.project, disposition=APPEND)
        if task.dry_run:
            return
        if task.media is not None:
            size = task.media.stat().st_size
            files = iter([File(uri="", path=decompressed(task.media), size=size)])
        else:
            files = self._storage.files(configuration.get("sourceUris") or ())
        with task.database.staging() as store:
            loader = _Loader(task, store, configuration, _known_fields(task, write))
            loader.load(files)
            with task.writing() as connection:
                table = task.catalog.find(connection, write.destination)
                before = content(connection, table).bytes if table else 0
                if table and write.disposition != APPEND:
                    before -= content(connection, table, write.destination.partition).bytes
                made = write.apply(connection, task.catalog, store, loader.fields, task.now())
                after = content(connection, made).bytes
                loader.report(output_bytes=after - before)


def _known_fields(task: Task, write: Write) -> Fields:
    """The schema that the table has."""
    with task.database.reading() as connection:
        table = task.catalog.find(connection, write.destination)
        return table.fields if table else ()


class _Loader:
    """Fills the job's own table."""

    def __init__(self, task: Task, store: str, configuration: Resource, known: Fields) -> None:
        self._task, self._store, self._known = task, store, known
        self._given = from_json((configuration.get("schema") or {}).get("fields") or ())
        self._detects = bool(configuration.get("autodetect"))
        self._ignore_unknown = bool(configuration.get("ignoreUnknownValues"))
        self._allowed = int(configuration.get("maxBadRecords") or 0)
        self._count = _Count()
        self.fields: Fields = ()

    def load(self, files: Iterator[File]) -> None:
        """Reads all files, and deletes them.

        Raises:
            BigQueryError: more rows are bad than may be, or there is no schema.
        """
        with self._task.database.cursor() as cursor, self._task.cancellable(cursor):
            for batch in self._batches(files):
                try:
                    if not self.fields:
                        self._begin(cursor, batch)
                    self._load_batch(cursor, batch)
                finally:
                    for file in batch:
                        file.path.unlink(missing_ok=True)
                self._task.check()
            if not self.fields:
                self._begin(cursor, [])
        self.report(output_bytes=0)

    def report(self, *, output_bytes: int) -> None:
        """Puts what was done into the job."""
        count = self._count
        self._task.record(
            load={
                "inputFiles": str(count.files),
                "inputFileBytes": str(count.bytes),
                "outputRows": str(count.rows),
                "outputBytes": str(output_bytes),
                "badRecords": str(len(count.bad)),
            },
            totalBytesProcessed=str(count.bytes),
        )

    def _batches(self, files: Iterator[File]) -> Iterator[list[File]]:
        batch: list[File] = []
        size = 0
        try:
            for file in files:
                batch.append(file)
                size += file.path.stat().st_size
                self._count.files += 1
                self._count.bytes += file.size
                if size >= _BATCH_BYTES or len(batch) >= _BATCH_FILES:
                    yield batch
                    batch, size = [], 0
            if batch:
                yield batch
                batch = []
        finally:
            for file in batch:
                file.path.unlink(missing_ok=True)

    def _begin(self, cursor: Connection, batch: Sequence[File]) -> None:
        if self._given:
            self.fields = self._given
        elif self._detects:
            self.fields = detect(_sample(batch), known=self._known)
        elif self._known:
            self.fields = self._known
        else:
            raise invalid("No schema specified on job or table.")
        cursor.execute(f"CREATE TABLE {self._store} ({column_list(self.fields)})")

    def _load_batch(self, cursor: Connection, batch: Sequence[File]) -> None:
        try:
            self._count.rows += self._insert([file.path for file in batch], cursor)
        except (ndjson.Unclear, duckdb.InvalidInputException, duckdb.ConversionException,
                duckdb.OutOfRangeException):  # fmt: skip
            # DuckDB says that something is wrong; rows says what, as BigQuery does, or that the
            # row is right after all.
            with self._scratch_file() as path:
                if good := self._read_rows(batch, path):
                    self._insert([path], cursor, ndjson.shape_of(self.fields))
                    self._count.rows += good

    def _insert(self, paths: list[Path], cursor: Connection, shape: Any = None) -> int:  # noqa: ANN401 - a Shape
        for maximum in (_USUAL_ROW_BYTES, MAXIMUM_ROW_BYTES + 2**20):
            lines = ndjson.source(paths, maximum_bytes=maximum)
            try:
                if shape is None:
                    found = cursor.execute(ndjson.structures_query(lines)).fetchall()
                    if not found:
                        return 0
                    shape = ndjson.common_shape(text for (text,) in found)
                sql = ndjson.insert(
                    self._store, lines, self.fields, shape, ignore_unknown=self._ignore_unknown
                )
                [count] = cursor.execute(sql).fetchone() or (0,)
                return int(count)
            except duckdb.InvalidInputException as error:
                if "maximum_object_size" not in str(error):
                    raise
        raise ndjson.Unclear

    @contextmanager
    def _scratch_file(self) -> Iterator[Path]:
        path = self._task.database.scratch / uuid.uuid4().hex
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _read_rows(self, batch: Sequence[File], path: Path) -> int:
        """Writes the good rows to a file that DuckDB takes for certain."""
        reader = RowReader(self.fields, ignore_unknown=self._ignore_unknown)
        good = 0
        with path.open("w", encoding="utf-8") as out:
            for file in batch:
                for position, line in lines_of(file.path):
                    try:
                        row = reader.read(line)
                    except RowError as error:
                        self._bad(file, position, error, good)
                    else:
                        out.write(json.dumps(row) + "\n")
                        good += 1
                self._task.check()
        return good

    def _bad(self, file: File, position: int, error: RowError, good: int) -> None:
        where = f" File: {file.uri}" if file.uri else ""
        bad = self._count.bad
        bad.append(
            invalid(
                "Error while reading data, error message: JSON parsing error in row starting at"
                f" position {position}: {error}{where}",
                location=file.uri,
            )
        )
        if len(bad) <= self._allowed:
            return
        rows = self._count.rows + good + len(bad)
        self.report(output_bytes=0)
        counts = f"Rows: {rows}; errors: {len(bad)}"
        raise BigQueryError(
            "invalid",
            "Error while reading data, error message: JSON table encountered too many errors,"
            f" giving up. {counts}. Please look into the errors[] collection for more details."
            f"{where}",
            location=file.uri,
            details=[
                invalid(
                    "Error while reading data, error message: JSON processing encountered too many"
                    f" errors, giving up. {counts}; max bad: {self._allowed}; error percent: 0"
                ),
                *bad[-_SHOWN_ERRORS:],
            ],
        )


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, each with its position in bytes."""
    position = 0
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                yield position, line
            position += len(line)


def _sample(batch: Sequence[File]) -> Iterator[dict[str, Any]]:
    count = 0
    for file in batch:
        for position, line in lines_of(file.path):
            try:
                yield parsed(line)
            except RowError as error:
                raise invalid(
                    "Error while reading data, error message: JSON parsing error in row starting"
                    f" at position {position}: {error} File: {file.uri}",
                    location=file.uri,
                ) from error
            count += 1
            if count == SAMPLE_ROWS:
                return
