"""What the steps and sensors talk to, as Dagster resources: the job store, BigQuery, Cloud Storage.

Clients are made, and their libraries imported, when a step asks for them: the code server, the
sensors and a waiting parse need neither BigQuery's nor, mostly, Cloud Storage's. With an emulator
host in the environment the clients go there, without credentials.
"""

import datetime as dt
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import dagster as dg
from pydantic import Field, PrivateAttr

from gardener_api.store import JobStore, StoreError
from gardener_dagster.warehouse.names import table_url

if TYPE_CHECKING:
    from google.auth.credentials import Credentials
    from google.cloud import bigquery, storage

    from gardener_dagster.warehouse.operations import Warehouse


RUN_PATIENCE = 600.0
"""Seconds that a run waits for the job store's database: longer than a restart or a failover."""


class JobStoreUnavailable(dg.DagsterError):
    """The job store cannot be used; the message says what to do.

    Dagster shows its own errors as they are; any other it would put below a line of its own, which
    says only where it was raised.
    """


@contextmanager
def store_needed() -> Iterator[None]:
    """For a step that cannot go on without the job store.

    Raises:
        dg.Failure: The store was away for too long; the first line says what to do.
    """
    try:
        yield
    except StoreError as error:
        raise dg.Failure(
            description=f"{error}, then re-execute the run from its failure: what was done is kept",
            allow_retries=False,
        ) from error


class JobStoreResource(dg.ConfigurableResource[JobStore]):
    """The job store, opened once a run or tick."""

    url: str = Field(description="SQLAlchemy URL: sqlite:///path or postgresql+psycopg://…")
    lease_seconds: float = Field(description="how long a parser may be silent")
    max_attempts: int = Field(description="how often a job is tried")

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[JobStore]:
        """Hands out the store itself: steps and sensors see a ``JobStore``.

        A run waits for a database that is restarted; a tick is made again anyhow.

        Raises:
            JobStoreUnavailable: The store cannot be used.
        """
        try:
            store = JobStore.open(
                self.url,
                lease=dt.timedelta(seconds=self.lease_seconds),
                max_attempts=self.max_attempts,
                patience=RUN_PATIENCE if context.run else 0.0,
            )
        except StoreError as error:
            raise JobStoreUnavailable(str(error)) from error
        try:
            yield store
        finally:
            store.close()


class WarehouseResource(dg.ConfigurableResource[None]):
    """The table operations, on one BigQuery client a run."""

    project: str = Field(description="Google Cloud project of the tables")
    location: str = Field(default="", description="location of the datasets")
    priority: Literal["BATCH", "INTERACTIVE"] = Field(
        default="BATCH", description="of queries: BATCH ones wait for idle workers"
    )
    maximum_bytes_billed: int | None = Field(
        default=None, description="a query that would cost more is refused"
    )
    schema_update: Literal["error", "add"] = Field(
        default="error", description="what a field that the tables lack is"
    )
    tmp_expiration_seconds: float = Field(
        default=7 * 86400.0, description="a tmp partition untouched for so long is a leftover"
    )
    _tables: "Warehouse | None" = PrivateAttr(default=None)
    _client: "bigquery.Client | None" = PrivateAttr(default=None)

    @property
    def tables(self) -> "Warehouse":
        """The operations; the client is made at first use."""
        if self._tables is None:
            from google.cloud import bigquery

            from gardener_dagster.warehouse.engine import Settings
            from gardener_dagster.warehouse.operations import Warehouse

            self._client = bigquery.Client(
                project=self.project,
                location=self.location or None,
                credentials=_credentials("BIGQUERY_EMULATOR_HOST"),
            )
            settings = Settings(
                project=self.project,
                location=self.location,
                priority=self.priority,
                maximum_bytes_billed=self.maximum_bytes_billed,
            )
            self._tables = Warehouse(
                self._client,
                settings,
                tmp_expiration=dt.timedelta(seconds=self.tmp_expiration_seconds),
                schema_update=self.schema_update,
            )
        return self._tables

    def table_url(self, table_id: str) -> str:
        """Where a person looks at ``dataset.table``, or at the table of a partition."""
        return table_url(self.project, table_id.partition("$")[0])

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Closes the client's connections."""
        if self._client is not None:
            self._client.close()


class GCSResource(dg.ConfigurableResource[None]):
    """One Cloud Storage client a run."""

    project: str = Field(description="Google Cloud project that is billed")
    parsed_bucket: str = Field(description="the bucket the parsers write to")
    _client: "storage.Client | None" = PrivateAttr(default=None)

    @property
    def client(self) -> "storage.Client":
        """The client, made at first use."""
        if self._client is None:
            from google.cloud import storage

            self._client = storage.Client(
                project=self.project, credentials=_credentials("STORAGE_EMULATOR_HOST")
            )
        return self._client

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Closes the client's connections."""
        if self._client is not None:
            self._client.close()


def _credentials(emulator_variable: str) -> "Credentials | None":
    """None, for the machine's own; anonymous where the client's own variable names an emulator."""
    if not os.environ.get(emulator_variable):
        return None
    from google.auth.credentials import AnonymousCredentials

    return AnonymousCredentials()
