"""What the buckets hold for a job: the archives to parse, and the objects that a parser wrote.

Lists objects only. A failed listing raises an error with the URL; it is never an empty day.
"""

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gardener_api.jobs.job import JobKey
from gardener_api.regex import compile_filter

if TYPE_CHECKING:
    from google.cloud.storage import Blob, Client

_TIMEOUT_SECONDS = 60.0


class ArchiveError(RuntimeError):
    """A bucket could not be listed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchiveListing:
    """The archives of a job."""

    names: tuple[str, ...]
    bytes: int
    created: tuple[dt.datetime, ...] = field(default=(), compare=False)  # of each of `names`

    def since(self, time: dt.datetime) -> dict[str, dt.datetime]:
        """Return the archives created or replaced after a time, with their creation times."""
        pairs = zip(self.names, self.created, strict=True)
        return {name: created for name, created in pairs if created > time}

    @property
    def count(self) -> int:
        """The number of archives."""
        return len(self.names)


@dataclass(frozen=True, kw_only=True, slots=True)
class ParsedObject:
    """An object that a parser wrote for one archive."""

    name: str
    size: int  # bytes
    updated: dt.datetime  # when it was written
    rows: int | None  # number of rows in the object's metadata; None: not given
    write_error: str  # error of the parser's sink; "": none


def list_archives(client: "Client", bucket: str, prefix: str, filter: str = "") -> ArchiveListing:
    """List the archives under a prefix.

    Args:
        client: A Cloud Storage client.
        bucket: The bucket of the archives.
        prefix: The prefix of a job's object names: ``JobKey.prefix``.
        filter: A regular expression (RE2), searched for in the full object name, as parsers do.

    Raises:
        ValueError: The filter is not a regular expression.
        ArchiveError: The bucket could not be listed.
    """
    wanted = compile_filter(filter)
    # Not `updated`: changes of the storage class or of a hold also set that.
    fields = "items(name,size,timeCreated),nextPageToken"
    found = [
        blob for blob in _list(client, bucket, prefix, fields=fields) if wanted.search(blob.name)
    ]
    return ArchiveListing(
        names=tuple(blob.name for blob in found),
        bytes=sum(blob.size or 0 for blob in found),
        created=tuple(blob.time_created for blob in found),
    )


def list_parsed(client: "Client", output_bucket: str, key: JobKey) -> list[ParsedObject]:
    """List the objects that parsers wrote for a job's archives, in all of its parses.

    Args:
        client: A Cloud Storage client.
        output_bucket: The bucket that the parsers write to.
        key: The key of the job.

    Raises:
        ArchiveError: The bucket could not be listed.
    """
    fields = "items(name,size,updated,metadata),nextPageToken"
    return [
        _parsed(blob)
        for blob in _list(client, output_bucket, f"{key.bucket}/{key.prefix}", fields=fields)
    ]


def _parsed(blob: "Blob") -> ParsedObject:
    metadata = blob.metadata or {}
    rows = metadata.get("rows", "")
    return ParsedObject(
        name=blob.name,
        size=blob.size or 0,
        updated=blob.updated,
        rows=int(rows) if rows.isdecimal() else None,
        write_error=metadata.get("writeError", ""),
    )


def _list(client: "Client", bucket: str, prefix: str, *, fields: str) -> Iterator["Blob"]:
    with _naming(f"gs://{bucket}/{prefix}"):
        for blob in client.list_blobs(
            bucket, prefix=prefix, fields=fields, timeout=_TIMEOUT_SECONDS
        ):
            if not blob.name.endswith("/"):  # a console's placeholder for an empty folder
                yield blob


@contextmanager
def _naming(url: str) -> Iterator[None]:
    # Imported here because they are slow; making a client has imported them already.
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from requests import RequestException

    try:
        yield
    except (GoogleAPIError, GoogleAuthError, RequestException) as error:
        raise ArchiveError(
            f"{url} could not be listed: {' '.join(str(error).split())}. What to do: see that the"
            " bucket is there and that the account may list it"
        ) from error
