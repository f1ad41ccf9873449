"""The files of a load job: objects of Cloud Storage, or what came with the call, as local files."""

import gzip
import re
import shutil
import threading
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gardener_dagster.local.bigquery.errors import BigQueryError, invalid, not_found

MAXIMUM_URIS = 10_000
"""https://cloud.google.com/bigquery/quotas#load_jobs: source URIs in a job's configuration."""

_AHEAD = 4
"""Objects that are fetched before they are read, in so many threads.

The emulator of Cloud Storage takes one call at a time, and lets five wait.
"""

_URI = re.compile(r"gs://(?P<bucket>[^/*]+)/(?P<name>.+)")


@dataclass(frozen=True, kw_only=True)
class File:
    """A file to load; whoever gets it deletes it.

    Attributes:
        uri: of the object; empty: it came with the call.
        size: of the object, before it was decompressed.
    """

    uri: str
    path: Path
    size: int


def check_uris(uris: Sequence[str]) -> None:
    """Refuses what BigQuery refuses at once.

    Raises:
        BigQueryError: too many, or one is none of Cloud Storage.
    """
    if len(uris) > MAXIMUM_URIS:
        raise invalid(
            f"Too many source URIs: {len(uris)}. A load job can have at most {MAXIMUM_URIS}"
        )
    for uri in uris:
        if not _URI.fullmatch(uri):
            raise invalid(f"Source URI must be a Google Cloud Storage location: {uri}")
        if uri.count("*") > 1:
            raise invalid(f"Source URI must not contain more than one '*' wildcard: {uri}")


class Storage:
    """Cloud Storage.

    Args:
        scratch: folder for files.
        url: of an emulator; empty: as ``STORAGE_EMULATOR_HOST`` says.
    """

    def __init__(self, scratch: Path, url: str = "") -> None:
        self._scratch, self._url = scratch, url
        self._lock = threading.Lock()
        self._client: Any = None

    def files(self, uris: Sequence[str]) -> Iterator[File]:
        """The objects, one after the other.

        Raises:
            BigQueryError: there is none of that name, or Cloud Storage fails.
        """
        with ThreadPoolExecutor(_AHEAD, thread_name_prefix="fetch") as pool:
            ahead: deque[Future[File]] = deque()
            try:
                for uri in uris:
                    for one in self._names(uri):
                        ahead.append(pool.submit(self._fetch, one))
                        if len(ahead) >= _AHEAD:
                            yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    if not future.cancel() and future.exception() is None:
                        future.result().path.unlink()

    def _names(self, uri: str) -> list[str]:
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        prefix, star, suffix = name.partition("*")
        if not star:
            return [uri]
        from google.api_core.exceptions import GoogleAPICallError, NotFound

        try:
            blobs = self._storage().list_blobs(
                bucket, prefix=prefix, fields="items(name),nextPageToken"
            )
            names = [
                f"gs://{bucket}/{blob.name}"
                for blob in blobs
                if blob.name.endswith(suffix) and len(blob.name) >= len(prefix) + len(suffix)
            ]
        except NotFound as error:
            raise not_found("URI", uri) from error
        except GoogleAPICallError as error:
            raise BigQueryError("backendError", f"Cloud Storage: {error}") from error
        if not names:
            raise not_found("URI", uri)
        return names

    def _fetch(self, uri: str) -> File:
        from google.api_core.exceptions import GoogleAPICallError, NotFound

        bucket, _, name = uri.removeprefix("gs://").partition("/")
        path = self._scratch / uuid.uuid4().hex
        try:
            blob = self._storage().bucket(bucket).blob(name)
            with path.open("wb") as file:
                blob.download_to_file(file, raw_download=True)
            size = path.stat().st_size
            return File(uri=uri, path=decompressed(path), size=size)
        except NotFound as error:
            path.unlink(missing_ok=True)
            raise not_found("URI", uri) from error
        except GoogleAPICallError as error:
            path.unlink(missing_ok=True)
            raise BigQueryError("backendError", f"Cloud Storage: {error}") from error

    def _storage(self) -> Any:  # noqa: ANN401 - google.cloud.storage has no types
        """Made when first needed: the import takes longer than the server's start."""
        from google.auth.credentials import AnonymousCredentials
        from google.cloud.storage import Client

        with self._lock:
            if self._client is None:
                options = {"api_endpoint": self._url} if self._url else None
                self._client = Client(
                    project="local",
                    credentials=AnonymousCredentials(),
                    client_options=options,
                )
        return self._client

    def close(self) -> None:
        """Ends its connections."""
        if self._client is not None:
            self._client.close()


def decompressed(path: Path) -> Path:
    """The file, or what is in it if it is gzip: told by the content, not by a name.

    Raises:
        BigQueryError: it begins like gzip and is broken.
    """
    with path.open("rb") as file:
        if file.read(2) != b"\x1f\x8b":
            return path
    plain = path.with_suffix(".plain")
    try:
        with gzip.open(path) as packed, plain.open("wb") as out:
            shutil.copyfileobj(packed, out, 2**20)
    except (OSError, EOFError) as error:
        plain.unlink()
        raise invalid(f"Error while reading data, error message: {error}") from error
    finally:
        path.unlink()
    return plain
