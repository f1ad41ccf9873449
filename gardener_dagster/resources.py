"""What steps and sensors talk to, as Dagster resources: the job store, BigQuery, Cloud Storage.

The resources of BigQuery and Cloud Storage extend those of ``dagster_gcp``. If the environment
names an emulator, their clients use it, without credentials. Clients are created at first use.
"""

import datetime as dt
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal, Self

import dagster as dg
import dagster_gcp
from dagster_gcp import BigQueryResource
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery, storage
from pydantic import Field, PrivateAttr

from gardener_api.store.schema import StoreError
from gardener_api.store.store import JobStore
from gardener_dagster import settings
from gardener_dagster.warehouse.engine import Settings
from gardener_dagster.warehouse.names import table_url
from gardener_dagster.warehouse.operations.warehouse import Warehouse

RUN_CONNECT_TIMEOUT = 600.0
"""Seconds that a run waits for the job store's database: longer than a restart or a failover."""


class JobStoreUnavailable(dg.DagsterError):
    """The job store cannot be used; the message says what to do.

    Dagster shows a ``DagsterError`` as it is; above any other error it puts a line that says only
    where the error was raised.
    """


@contextmanager
def store_needed() -> Iterator[None]:
    """Convert a ``StoreError`` of the body into a failure of the step.

    Raises:
        dg.Failure: The store was unavailable for too long; the first line says what to do.
    """
    try:
        yield
    except StoreError as error:
        raise dg.Failure(
            description=f"{error}, then re-execute the run from its failure: what was done is kept",
            allow_retries=False,
        ) from error


class JobStoreResource(dg.ConfigurableResource[JobStore]):
    """The job store, opened once per run or tick."""

    url: str = Field(description="SQLAlchemy URL: sqlite:///path or postgresql+psycopg://…")
    lease_seconds: float = Field(description="how long a parser may be silent")
    max_attempts: int = Field(description="how often a job is tried")
    may_migrate: bool = Field(
        default=True, description="whether a missing or older store is made or migrated"
    )

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[JobStore]:
        """Yield the store itself: steps and sensors receive a ``JobStore``.

        A run waits for a database that restarts; a tick fails at once, as the next one repeats it.

        Raises:
            JobStoreUnavailable: The store cannot be used.
        """
        try:
            store = JobStore.open(
                self.url,
                lease=dt.timedelta(seconds=self.lease_seconds),
                max_attempts=self.max_attempts,
                connect_timeout=RUN_CONNECT_TIMEOUT if context.run else 0.0,
                may_migrate=self.may_migrate,
            )
        except StoreError as error:
            raise JobStoreUnavailable(str(error)) from error
        try:
            yield store
        finally:
            store.close()


class WarehouseResource(BigQueryResource):
    """The table operations, with one BigQuery client per run, shared by the run's threads."""

    project: str = Field(description="Google Cloud project of the tables")
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
        default=7 * 86400.0,
        description="a tmp partition that was not written for so long is deleted",
    )
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)
    _tables: Warehouse | None = PrivateAttr(default=None)
    _opened: ExitStack = PrivateAttr(default_factory=ExitStack)

    @contextmanager
    def get_client(self) -> Iterator[bigquery.Client]:
        """Yield a BigQuery client, of the emulator if the environment names one."""
        if settings.uses_bigquery_emulator():
            yield bigquery.Client(
                project=self.project,
                location=self.location,
                credentials=AnonymousCredentials(),
            )
        else:
            with super().get_client() as client:
                yield client

    @property
    def tables(self) -> Warehouse:
        """The table operations; the client is created at first use."""
        with self._lock:
            if self._tables is None:
                settings = Settings(
                    project=self.project,
                    location=self.location or "",
                    priority=self.priority,
                    maximum_bytes_billed=self.maximum_bytes_billed,
                )
                client = self._opened.enter_context(self.get_client())
                self._opened.callback(client.close)
                self._tables = Warehouse(
                    client,
                    settings,
                    tmp_expiration=dt.timedelta(seconds=self.tmp_expiration_seconds),
                    schema_update=self.schema_update,
                )
            return self._tables

    def get_object_to_set_on_execution_context(self) -> Self:
        """Return the resource itself; ``dagster_gcp`` would create a client for each step."""
        return self

    def table_url(self, table_id: str) -> str:
        """Return the console URL of ``dataset.table``, or of the table of a partition's ID."""
        return table_url(self.project, table_id.partition("$")[0])

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Close the client's connections."""
        self._opened.close()


class GCSResource(dagster_gcp.GCSResource):
    """One Cloud Storage client per run, shared by the run's threads."""

    project: str = Field(description="Google Cloud project that is billed")
    parsed_bucket: str = Field(description="the bucket the parsers write to")
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)
    _client: storage.Client | None = PrivateAttr(default=None)

    def get_client(self) -> storage.Client:
        """Return a new Cloud Storage client, of the emulator if the environment names one."""
        if settings.storage_emulator():
            return storage.Client(
                project=self.project,
                credentials=AnonymousCredentials(),
            )
        return super().get_client()

    def get_object_to_set_on_execution_context(self) -> Self:
        """Return the resource itself; ``dagster_gcp`` would create a client for each step."""
        return self

    @property
    def client(self) -> storage.Client:
        """The client, created at first use."""
        with self._lock:
            if self._client is None:
                self._client = self.get_client()
            return self._client

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Close the client's connections."""
        if self._client is not None:
            self._client.close()
