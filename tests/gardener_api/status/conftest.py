import datetime as dt

import pytest
from page_text import LATER
from problem_facts import DAY, HOUR, NOW
from starlette.testclient import TestClient

from gardener_api.config import GardenerConfig
from gardener_api.jobs.snapshot import Snapshot, grid_dates
from gardener_api.status.pages import create_status_app
from gardener_api.store.store import JobStore


@pytest.fixture
def client(store: JobStore, config: GardenerConfig, now: dt.datetime) -> TestClient:
    return TestClient(create_status_app(config, store, clock=lambda: now + LATER))


@pytest.fixture
def everything(config: GardenerConfig) -> Snapshot:
    """Every due date of both sources is complete: nothing is wrong."""
    names = [source.name for source in config.sources]
    return Snapshot(
        complete={(name, date) for name in names for date in grid_dates(NOW)},
        begun=NOW - 60 * DAY,
        handed_out=NOW - HOUR,
    )
