"""Clients of the local stack's BigQuery and Cloud Storage, for what runs beside the pipeline."""

from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery, storage

from gardener_dagster import settings

PROJECT = "mlab-local"


def storage_client(url: str = "") -> storage.Client:
    """Return a client of Cloud Storage.

    Args:
        url: URL of an emulator; "": STORAGE_EMULATOR_HOST if set, else Google's service.
    """
    url = url or settings.storage_emulator()
    if not url:
        return storage.Client()
    return storage.Client(
        project=PROJECT,
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": url},
    )


def bigquery_client(url: str) -> bigquery.Client:
    """Return a client of the local BigQuery.

    Args:
        url: URL of the server.
    """
    return bigquery.Client(
        project=PROJECT,
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": url},
    )
