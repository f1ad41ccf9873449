"""What comes from anybody: never a traceback, never an unknown 500, never a changed job."""

import concurrent.futures
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gardener_api.jobs.job import MAX_TEXT, JobState
from gardener_api.server import jobs_api

Sidecar = Any  # the fixtures are in conftest, which cannot be imported
ID = "archive-mlab-oti/ndt/ndt7/20240301"
PATHS = ["/v2/job/next", "/v2/job/update", "/v2/job/heartbeat", "/v2/job/error",
         "/job", "/update", "/heartbeat", "/error", "/alive", "/ready", "/nowhere"]  # fmt: skip
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
SECONDS = 30.0


def raw(sidecar: Sidecar, data: bytes) -> bytes:
    """Send bytes, say that there are no more, and take all that comes back."""
    with socket.create_connection(("127.0.0.1", sidecar.ports.jobs), timeout=SECONDS) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
        return received


FUZZ = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@FUZZ
@given(
    method=st.sampled_from(["POST", "POST", "POST", "GET", "PUT", "DELETE"]),
    path=st.sampled_from(PATHS),
    query=st.binary(max_size=200),
    escaped=st.booleans(),
    body=st.binary(max_size=500),
    form=st.booleans(),
)
def test_any_request(
    sidecar: Sidecar,
    method: str,
    path: str,
    query: bytes,
    escaped: bool,
    body: bytes,
    form: bool,
) -> None:
    shown = quote(query) if escaped else quote(query, safe="%&=;+!$'()*,:@/?")
    reply = sidecar.request(method, f"{path}?{shown}", body, FORM if form else {})
    assert reply.code in (200, 400, 404, 405, 410, 422, 424, 500)
    if reply.code == 500:
        assert reply.body == b"No job found. Try again."
    assert b"Traceback" not in reply.body
    assert int(reply.headers["content-length"]) < 300


@FUZZ
@given(
    call=st.sampled_from(["update", "heartbeat", "error"]),
    values=st.dictionaries(
        st.sampled_from(["id", "state", "detail", "error", "other"]), st.text(max_size=100)
    ),
)
def test_any_parameters(sidecar: Sidecar, call: str, values: dict[str, str]) -> None:
    encoded = "&".join(f"{name}={quote(value, errors='replace')}" for name, value in values.items())
    reply = sidecar.request("POST", f"/v2/job/{call}", encoded.encode(), FORM)
    assert reply.code in (400, 410, 422, 424)


@FUZZ
@given(data=st.binary(max_size=300))
def test_any_bytes(sidecar: Sidecar, data: bytes) -> None:
    received = raw(sidecar, data)
    assert b"Traceback" not in received
    assert not received or received.startswith(b"HTTP/1.1 4")


@pytest.fixture
def leased(sidecar: Sidecar) -> str:
    sidecar.ask()
    assert sidecar.request("POST", "/v2/job/next").code == 200
    return ID


@pytest.mark.parametrize(
    "detail",
    ["\0", "\0" * 100, "'; DROP TABLE jobs; --", "<script>alert(1)</script>", "🌱" * 1000, "\u202e",
     "a\r\nX-Injected: 1", "%00", "{{ 7 * 7 }}"],
)  # fmt: skip
def test_text_stays_text(sidecar: Sidecar, leased: str, detail: str) -> None:
    target = f"/v2/job/update?id={leased}&state=parsing&detail={quote(detail)}"
    assert sidecar.request("POST", target).code == 200
    [job] = sidecar.store.jobs(limit=2)
    assert job.detail == detail.replace("\0", "\ufffd")


@pytest.mark.parametrize("size", [MAX_TEXT - 1, MAX_TEXT, MAX_TEXT + 1, 1_000_000])
def test_long_details_and_errors_are_cut(sidecar: Sidecar, leased: str, size: int) -> None:
    body = f"id={leased}&state=parsing&detail={'%41' * size}".encode()
    assert sidecar.request("POST", "/v2/job/update", body, FORM).code == 200
    [job] = sidecar.store.jobs(limit=2)
    assert job.detail == "A" * min(size, MAX_TEXT)
    body = f"id={leased}&error={'%42' * size}".encode()
    assert sidecar.request("POST", "/v2/job/error", body, FORM).code == 200
    [job] = sidecar.store.jobs(limit=2)
    assert job.error == "B" * min(size, MAX_TEXT)


def test_a_form_that_is_too_long(sidecar: Sidecar, leased: str) -> None:
    head = (
        f"POST /v2/job/update?id={leased} HTTP/1.1\r\nHost: x\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\n"
        "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    ).encode()
    chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    with socket.create_connection(("127.0.0.1", sidecar.ports.jobs), timeout=SECONDS) as connection:
        connection.sendall(head)
        for _ in range(jobs_api.MAX_BODY // 0x100000 + 1):
            connection.sendall(chunk)
        assert connection.recv(100).startswith(b"HTTP/1.1 413")
    [job] = sidecar.store.jobs(limit=2)
    assert job.state is JobState.INIT


def test_too_many_parameters(sidecar: Sidecar, leased: str) -> None:
    many = "&".join(f"x{i}=1" for i in range(1000))
    assert sidecar.request("POST", f"/heartbeat?id={leased}&{many}").code == 400


def test_a_form_that_never_ends(
    sidecar: Sidecar, leased: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_api, "BODY_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", sidecar.ports.jobs), timeout=SECONDS) as connection:
        connection.sendall(
            b"POST /v2/job/heartbeat HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
            b"Content-Type: application/x-www-form-urlencoded\r\n\r\nid="
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 408")
    assert sidecar.request("POST", f"/heartbeat?id={leased}").code == 200


def test_a_form_that_is_cut_off(sidecar: Sidecar, leased: str) -> None:
    received = raw(
        sidecar,
        b"POST /v2/job/update HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\n\r\n"
        b"id=" + leased.encode() + b"&state=postProcessing",
    )
    assert b" 200 " not in received
    [job] = sidecar.store.jobs(limit=2)
    assert job.state is JobState.INIT


def test_forms_share_a_bound_on_memory(
    sidecar: Sidecar, leased: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_api, "MAX_BODIES", 1000)
    body = f"id={leased}&detail={'x' * 2000}".encode()
    reply = sidecar.request("POST", "/v2/job/heartbeat", body, FORM)
    assert (reply.code, reply.headers["retry-after"]) == (503, "5")
    assert sidecar.request("POST", "/heartbeat", f"id={leased}".encode(), FORM).code == 200


def test_many_open_connections(sidecar: Sidecar, leased: str) -> None:
    """Most say nothing, or half of a request; the others are served."""
    address = ("127.0.0.1", sidecar.ports.jobs)
    idle = [socket.create_connection(address, timeout=SECONDS) for _ in range(300)]
    try:
        for connection in idle[::2]:
            connection.sendall(b"POST /v2/job/heartbeat?id=")
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            targets = [f"/heartbeat?id={leased}"] * 200
            ask: Callable[[str], Any] = lambda target: sidecar.request("POST", target)  # noqa: E731 - typed for map
            codes = [reply.code for reply in pool.map(ask, targets)]
    finally:
        for connection in idle:
            connection.close()
    assert codes == [200] * 200
