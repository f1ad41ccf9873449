"""One archive in, one object of rows out.

Reads and writes both in Cloud Storage, and handles unreadable archives. ``worker`` handles jobs.
"""

import datetime as dt
import json
import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO

from google.api_core.exceptions import GoogleAPIError
from google.auth.exceptions import GoogleAuthError
from google.cloud.storage import Client
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from requests import RequestException

from gardener_api.client import LeasedJob
from gardener_api.jobs.job import DAMAGED_ARCHIVES
from gardener_dagster.local.parser.archives import Member, read_members
from gardener_dagster.local.parser.rows import CorruptError, Origin, parse_member
from gardener_dagster.local.parser.unpacking import DamagedError

log = logging.getLogger(__name__)

MAX_ROW_BYTES = 100_000_000
"""https://cloud.google.com/bigquery/quotas#load_jobs; a larger row fails the load of its date."""

STORAGE_ERRORS = (
    GoogleAPIError,
    GoogleAuthError,
    RequestException,
    DataCorruption,
    InvalidResponse,
)
"""The exceptions that Cloud Storage's client raises when a call fails."""

_NAMED = 8  # damaged archives that a detail names
_FAULT_TEXT = 100  # characters of each archive's fault
_SPOOL_BYTES = 16 * 2**20
_READ_BYTES = 8 * 2**20


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of parsing an archive.

    Attributes:
        name: Name of the archive's object.
        rows: Number of rows written.
        corrupt: Number of corrupt tests, which are left out.
        fault: What is damaged; "" if nothing is.
        written: Whether an object of rows was written; False if the archive could not be read.
    """

    name: str
    rows: int = 0
    corrupt: int = 0
    fault: str = ""
    written: bool = True


def detail_of(outcomes: Sequence[Outcome]) -> str:
    """Describe the damaged archives and corrupt tests of a job; "" if there are none."""
    damaged = sorted((o for o in outcomes if o.fault), key=lambda outcome: outcome.name)
    said = []
    if damaged:
        named = [
            f"{o.name.rpartition('/')[2]} ({o.fault[:_FAULT_TEXT]}; {o.rows} rows kept)"
            for o in damaged[:_NAMED]
        ]
        if len(damaged) > _NAMED:
            named.append(f"and {len(damaged) - _NAMED} more: see the parser's log")
        said.append(f"{DAMAGED_ARCHIVES}{len(damaged)} of {len(outcomes)}: {', '.join(named)}")
    if corrupt := sum(outcome.corrupt for outcome in outcomes):
        said.append(f"{corrupt} corrupt {'test' if corrupt == 1 else 'tests'} left out")
    return "; ".join(said)


@dataclass(frozen=True, kw_only=True)
class ArchiveParser:
    """Parses the archives of jobs. Thread-safe.

    Attributes:
        client: Client of Cloud Storage.
        output_bucket: Bucket that rows are written to.
        now: Returns the time, aware and UTC.
    """

    client: Client
    output_bucket: str
    now: Callable[[], dt.datetime]

    def parse(self, job: LeasedJob, name: str, checkpoint: Callable[[], object]) -> Outcome:
        """Write the rows of an archive to ``<output bucket>/<its bucket>/<its name>.jsonl``.

        An object of an earlier parse is overwritten. Of a truncated or damaged archive, the
        readable tests are written; if there are none, no object is written.

        Args:
            job: The job that the archive belongs to.
            name: Name of the archive's object.
            checkpoint: Called on progress: at each test, and for each unpacked piece of at most
                256 KiB. If it raises, the exception is passed on and nothing is written.

        Raises:
            *STORAGE_ERRORS: The archive could not be read, or its rows could not be written.
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
                for member in read_members(archive, checkpoint):
                    checkpoint()
                    rows.add(member, out)
            except DamagedError as error:
                fault = str(error)
                log.warning("%s: %d rows kept: %s", rows.url, rows.count, error)
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
        line = text.encode() + b"\n"
        if len(line) > MAX_ROW_BYTES:
            raise CorruptError(f"{member.name} makes a row of {len(line)} bytes")
        return line
