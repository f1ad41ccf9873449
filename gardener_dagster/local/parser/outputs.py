"""One archive in, one object of rows out.

Where both are, and what an archive that cannot be read comes to. Jobs belong in ``worker``.
"""

import datetime as dt
import json
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

from google.api_core.exceptions import GoogleAPIError
from google.auth.exceptions import GoogleAuthError
from google.cloud.storage import Client
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from requests import RequestException

from gardener_api.client import LeasedJob
from gardener_dagster.local.parser.archives import Member, TruncatedError, read_members
from gardener_dagster.local.parser.rows import CorruptError, Origin, parse_member

log = logging.getLogger(__name__)

MAX_ROW_BYTES = 100_000_000
"""https://cloud.google.com/bigquery/quotas#load_jobs; a larger one fails the load of its day."""

STORAGE_ERRORS = (
    GoogleAPIError,
    GoogleAuthError,
    RequestException,
    DataCorruption,
    InvalidResponse,
)
"""What Cloud Storage's client raises when it cannot do what it was asked to."""

_SPOOL_BYTES = 16 * 2**20
_READ_BYTES = 8 * 2**20


class StoppedError(Exception):
    """The work on an archive was no longer wanted; nothing was written."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of an archive.

    Attributes:
        name: Its object's.
        rows: Written.
        corrupt: Tests that were left out.
        fault: Why it could not be read to its end; "" if it could.
        written: Whether there is an object of rows. There is none of what is no archive.
    """

    name: str
    rows: int = 0
    corrupt: int = 0
    fault: str = ""
    written: bool = True


@dataclass(frozen=True, kw_only=True)
class ArchiveParser:
    """Parses the archives of jobs. Threads may share it.

    Attributes:
        client: Of Cloud Storage.
        output_bucket: Where rows are written.
        now: The time, aware and UTC.
    """

    client: Client
    output_bucket: str
    now: Callable[[], dt.datetime]

    def parse(self, job: LeasedJob, name: str, stopped: Callable[[], bool]) -> Outcome:
        """Writes the rows of an archive to ``<output bucket>/<its bucket>/<its name>.jsonl``.

        An object of an earlier parse is overwritten. What can be read of an archive that is cut off
        or damaged is written, as m-lab/etl does; of one that has nothing to read, nothing is.

        Args:
            job: Whose archive it is.
            name: Of the archive's object.
            stopped: Whether the work is no longer wanted; asked at each test.

        Raises:
            StoppedError: It is not.
            *STORAGE_ERRORS: The archive could not be fetched, or its rows not be stored.
        """
        blob = self.client.bucket(job.bucket).get_blob(name)
        if blob is None:
            return Outcome(name=name, fault="it is gone", written=False)
        with (
            tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as out,
            blob.open("rb", chunk_size=_READ_BYTES) as archive,
        ):
            rows = _Rows(job=job, name=name, size=blob.size or 0, now=self.now)
            fault = ""
            try:
                for member in read_members(archive):
                    if stopped():
                        raise StoppedError(name)
                    rows.add(member, out)
            except TruncatedError as error:
                fault = str(error)
                log.warning("%s after %d rows: %s", rows.url, rows.count, error)
                if not rows.count and not rows.corrupt:
                    return Outcome(name=name, fault=fault, written=False)
            size = out.tell()
            out.seek(0)
            target = self.client.bucket(self.output_bucket).blob(f"{job.bucket}/{name}.jsonl")
            target.metadata = {"rows": str(rows.count)}
            target.upload_from_file(out, size=size, content_type="application/x-ndjson")
        return Outcome(name=name, rows=rows.count, corrupt=rows.corrupt, fault=fault)


@dataclass(kw_only=True)
class _Rows:
    job: LeasedJob
    name: str
    size: int
    now: Callable[[], dt.datetime]
    count: int = 0
    corrupt: int = 0

    @property
    def url(self) -> str:
        return f"gs://{self.job.bucket}/{self.name}"

    def add(self, member: Member, out: IO[bytes]) -> None:
        try:
            line = self._line(member)
        except CorruptError as error:
            self.corrupt += 1
            log.warning("%s: left out: %s", self.url, error)
        else:
            out.write(line)
            self.count += 1

    def _line(self, member: Member) -> bytes:
        if member.content is None:
            raise CorruptError(f"{member.name} {member.fault}")
        origin = Origin(
            archive_url=self.url,
            archive_size=self.size,
            filename=member.name,
            file_size=member.size,
            parsed=self.now(),
        )
        row = parse_member(self.job.datatype, member.content, date=self.job.date, origin=origin)
        text = json.dumps(row, separators=(",", ":"), ensure_ascii=False)
        # JSON may escape half of a character; UTF-8 has no such thing.
        line = text.encode(errors="replace") + b"\n"
        if len(line) > MAX_ROW_BYTES:
            raise CorruptError(f"{member.name} makes a row of {len(line)} bytes")
        return line
