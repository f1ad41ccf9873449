"""Objects of Cloud Storage, as local files for load jobs."""

import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.api_core.exceptions import GoogleAPICallError, NotFound
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Client

from gardener_dagster.local.bigquery.errors import BigQueryError, invalid, not_found

_URI = re.compile(r"gs://[^/*]+/.+")


@dataclass(frozen=True, kw_only=True)
class File:
    """An object, downloaded to a local file.

    Attributes:
        uri: the object's URI.
        size: in bytes.
    """

    uri: str
    path: Path
    size: int


def check_uris(uris: Sequence[str]) -> None:
    """Refuse invalid URIs.

    Raises:
        BigQueryError: a URI is not valid.
    """
    for uri in uris:
        if not _URI.fullmatch(uri):
            raise invalid(f"Source URI must be a Google Cloud Storage location: {uri}")
        if uri.count("*") > 1:
            raise invalid(f"Source URI must not contain more than one '*' wildcard: {uri}")


class Storage:
    """A Cloud Storage client.

    Args:
        url: URL of an emulator; empty: ``STORAGE_EMULATOR_HOST``.
    """

    def __init__(self, url: str = "") -> None:
        self._client = Client(
            project="local",
            credentials=AnonymousCredentials(),
            client_options={"api_endpoint": url} if url else None,
        )

    def close(self) -> None:
        """Close the client's connections."""
        self._client.close()

    def files(self, uris: Sequence[str], folder: Path) -> Iterator[File]:
        """Download the objects into a folder, one at a time.

        Raises:
            BigQueryError: no object matches a URI, or Cloud Storage fails.
        """
        for uri in uris:
            try:
                names = self._names(uri)
                if not names:
                    raise not_found("URI", uri)
                for name in names:
                    yield self._fetch(name, folder)
            except NotFound as error:
                raise not_found("URI", uri) from error
            except GoogleAPICallError as error:
                raise BigQueryError("backendError", f"Cloud Storage: {error}") from error

    def _names(self, uri: str) -> list[str]:
        """Return the URIs of the objects that a URI with or without ``*`` matches."""
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        prefix, star, suffix = name.partition("*")
        if not star:
            return [uri]
        blobs = self._client.list_blobs(bucket, prefix=prefix, fields="items(name),nextPageToken")
        return [
            f"gs://{bucket}/{blob.name}"
            for blob in blobs
            if blob.name.endswith(suffix) and len(blob.name) >= len(prefix) + len(suffix)
        ]

    def _fetch(self, uri: str, folder: Path) -> File:
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        path = folder / uuid.uuid4().hex
        with path.open("wb") as file:
            self._client.bucket(bucket).blob(name).download_to_file(file, raw_download=True)
        return File(uri=uri, path=path, size=path.stat().st_size)
