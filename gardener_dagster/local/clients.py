"""Clients of the local stack's BigQuery and Cloud Storage, for what runs beside the pipeline."""

from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery, storage

from gardener_dagster import settings

PROJECT = "mlab-local"


def storage_client(url: str = "") -> storage.Client:
    """A client of Cloud Storage.

    Args:
        url: Of an emulator; "": the one that STORAGE_EMULATOR_HOST names, else Google's.
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
    """A client of the local BigQuery.

    Args:
        url: Of the server.
    """
    return bigquery.Client(
        project=PROJECT,
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": url},
    )
