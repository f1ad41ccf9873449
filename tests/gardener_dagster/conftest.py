import datetime as dt
import socket
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from gcp_storage_emulator.server import create_server
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from simulated import Parser, Put

from gardener_api.config import GardenerConfig, load_config
from gardener_api.store.store import JobStore
from gardener_dagster.definitions import build_defs
from gardener_dagster.resources import GCSResource, JobStoreResource, WarehouseResource

ARCHIVE, PARSED = "archive-mlab", "etl-mlab"

CONFIG = f"""
start_date: 2024-01-01
tracker: {{timeout: 1h, max_attempts: 2}}
monitor: {{polling_interval: 1s}}
sources:
- {{bucket: {ARCHIVE}, experiment: ndt, datatype: annotation2}}
- {{bucket: {ARCHIVE}, experiment: ndt, datatype: ndt7, target_datasets: {{join: ndt}}}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def config(tmp_path: Path) -> GardenerConfig:
    path = tmp_path / "gardener.yml"
    path.write_text(CONFIG, encoding="utf-8")
    return load_config(path)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[storage.Bucket]:
    """The archive bucket of a Cloud Storage on this machine."""
    port = free_port()
    server = create_server("127.0.0.1", port, in_memory=True)
    server.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    try:
        with storage.Client(project="p", credentials=AnonymousCredentials()) as client:
            client.create_bucket(PARSED)
            yield client.create_bucket(ARCHIVE)
    finally:
        server.stop()


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'gardener.db'}"


@pytest.fixture
def store(store_url: str, config: GardenerConfig) -> Iterator[JobStore]:
    opened = JobStore.open(
        store_url, lease=config.tracker.timeout, max_attempts=config.tracker.max_attempts
    )
    yield opened
    opened.close()


@pytest.fixture
def defs(config: GardenerConfig, store_url: str) -> dg.Definitions:
    return build_defs(
        config,
        job_store=JobStoreResource(
            url=store_url,
            lease_seconds=config.tracker.timeout.total_seconds(),
            max_attempts=config.tracker.max_attempts,
        ),
        warehouse=WarehouseResource(project="p"),
        gcs=GCSResource(project="p", parsed_bucket=PARSED),
    )


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def put_archive(bucket: storage.Bucket) -> Put:
    """Puts an empty archive of a source and date into the bucket."""

    def put(date: dt.date, datatype: str = "ndt7", name: str = "a.tgz") -> None:
        bucket.blob(f"ndt/{datatype}/{date:%Y/%m/%d}/{name}").upload_from_string(b"")

    return put


@pytest.fixture
def parser(store: JobStore) -> Parser:
    return Parser(store)
