import datetime as dt

import pytest
from page_text import LATER
from starlette.testclient import TestClient

from gardener_api.config import GardenerConfig
from gardener_api.status.pages import create_status_app
from gardener_api.store.store import JobStore


@pytest.fixture
def client(store: JobStore, config: GardenerConfig, now: dt.datetime) -> TestClient:
    return TestClient(create_status_app(config, store, clock=lambda: now + LATER))
