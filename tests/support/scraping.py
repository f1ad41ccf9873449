"""What the metrics port would answer."""

import datetime as dt

from starlette.testclient import TestClient

from gardener_api.config import GardenerConfig
from gardener_api.server.metrics import create_metrics_app
from gardener_api.store.store import JobStore


def scraped(config: GardenerConfig, store: JobStore, *, now: dt.datetime) -> str:
    """The metrics of a store, in Prometheus' text format."""
    client = TestClient(create_metrics_app(config, store.metrics, clock=lambda: now))
    response = client.get("/metrics")
    assert response.status_code == 200, response.text
    return response.text
