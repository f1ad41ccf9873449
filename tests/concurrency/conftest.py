"""Databases, and the sidecar as the process that it is in production, which a test can kill."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres import postgresql
from sidecar import SidecarProcess


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    """Which database the test runs on."""
    return str(request.param)


@pytest.fixture
def store_url(database: str, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database."""
    if database == "sqlite":
        yield f"sqlite:///{tmp_path / 'gardener.db'}"
        return
    # Synchronous as in production: it is the sidecar that dies, in the middle of commits.
    with postgresql() as url:
        yield url


@pytest.fixture
def sidecar(store_url: str, tmp_path: Path) -> Iterator[SidecarProcess]:
    """A sidecar that runs."""
    process = SidecarProcess(store_url, tmp_path)
    try:
        process.start()
        yield process
    finally:
        process.close()
