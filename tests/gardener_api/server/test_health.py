import threading

import pytest
from sqlalchemy.exc import OperationalError
from starlette.applications import Starlette
from starlette.testclient import TestClient

from gardener_api.server import health
from gardener_api.server.health import Check, health_routes
from gardener_api.store import schema
from gardener_api.store.engine import writing
from gardener_api.store.schema import StoreError
from gardener_api.store.store import JobStore


def client(**checks: Check) -> TestClient:
    return TestClient(Starlette(routes=health_routes(checks)))


def fail(error: Exception) -> Check:
    def check() -> str:
        raise error

    return check


def test_ready_says_how_everything_is() -> None:
    response = client(writer=lambda: "runs", store=lambda: "answers").get("/ready")
    assert response.status_code == 200
    assert response.text == "ready\nwriter: runs\nstore: answers\n"


def test_d42_not_ready_names_the_part_and_the_log_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    wrapped = OperationalError("SELECT secret", {}, Exception("connection\nrefused"))
    answers = client(writer=lambda: "runs", store=fail(wrapped))
    response = answers.get("/ready")
    assert response.status_code == 503
    assert response.text == "not ready: store; the log says why\n"
    assert "not ready: store: OperationalError: connection refused" in caplog.text
    assert "secret" not in caplog.text
    assert answers.get("/alive").status_code == 200


def test_a_store_that_hangs_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "READY_SECONDS", 0.05)
    go = threading.Event()

    def hang() -> str:
        go.wait(60)
        return "late"

    with client(store=hang) as answers:
        for _ in range(4):  # more than there are threads for
            response = answers.get("/ready")
            assert response.status_code == 503
            assert response.text == "not ready: store; the log says why\n"
        assert answers.get("/alive").text == "alive\n"
        go.set()


def test_a_store_that_a_newer_gardener_has_changed(store: JobStore) -> None:
    assert store.ping() == f"answers, version {schema.NEWEST}"
    with writing(store._engine).begin() as connection:
        connection.execute(schema.version.update().values(version_num="9999"))
    with pytest.raises(StoreError, match="of version 9999, and this gardener of"):
        store.ping()
