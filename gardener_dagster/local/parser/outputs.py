"""One archive in, one object of rows out.

Where both are, and what an archive that cannot be read comes to. Jobs belong in ``worker``.
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
"""https://cloud.google.com/bigquery/quotas#load_jobs; a larger one fails the load of its day."""

STORAGE_ERRORS = (
    GoogleAPIError,
    GoogleAuthError,
    RequestException,
    DataCorruption,
    InvalidResponse,
)
"""What Cloud Storage's client raises when it cannot do what it was asked to."""

_NAMED = 8  # damaged archives that a detail names
_FAULT_TEXT = 100  # characters of each one's fault
_SPOOL_BYTES = 16 * 2**20
_READ_BYTES = 8 * 2**20


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of an archive.

    Attributes:
        name: Its object's.
        rows: Written.
        corrupt: Tests that were left out.
        fault: What is damaged; "" if nothing is.
        written: Whether there is an object of rows. There is none of what is no archive.
    """

    name: str
    rows: int = 0
    corrupt: int = 0
    fault: str = ""
    written: bool = True


def detail_of(outcomes: Sequence[Outcome]) -> str:
    """What a person should know of the archives of a job; "" if all is well."""
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
    """Parses the archives of jobs. Threads may share it.

    Attributes:
        client: Of Cloud Storage.
        output_bucket: Where rows are written.
        now: The time, aware and UTC.
    """

    client: Client
    output_bucket: str
    now: Callable[[], dt.datetime]

    def parse(self, job: LeasedJob, name: str, checkpoint: Callable[[], object]) -> Outcome:
        """Writes the rows of an archive to ``<output bucket>/<its bucket>/<its name>.jsonl``.

        An object of an earlier parse is overwritten. What can be read of an archive that is cut off
        or damaged is written; of one that has nothing to read, nothing is.

        Args:
            job: Whose archive it is.
            name: Of the archive's object.
            checkpoint: Called whenever the work has got on: at each test, and at each 256 KiB at
                most that were unpacked. What it raises is passed on, and nothing is written.

        Raises:
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
