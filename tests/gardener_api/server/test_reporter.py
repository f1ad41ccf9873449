import datetime as dt
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import waiting

from gardener_api.jobs.job import JobRequest
from gardener_api.server import reporter as reporting
from gardener_api.server.reporter import Reporter
from gardener_api.store.store import JobStore

Wanted = Callable[..., JobRequest]
LEASE = dt.timedelta(hours=5)
SECONDS = 30.0


def until(condition: Callable[[], object]) -> None:
    waiting.until(condition, "it did not come to that", SECONDS)


class Webserver:
    """Takes observations as Dagster's webserver does, or answers with another code."""

    def __init__(self, port: int = 0) -> None:
        self.taken: list[tuple[str, str, str]] = []  # path, partition, description
        self.code: Callable[[str], int] = lambda _: 200
        self.called = threading.Condition()
        webserver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                code = webserver.code(body["partition"])
                with webserver.called:
                    if code == 200:
                        webserver.taken.append((self.path, body["partition"], body["description"]))
                    webserver.called.notify_all()
                self.send_response(code)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_for(self, count: int) -> None:
        with self.called:
            assert self.called.wait_for(lambda: len(self.taken) >= count, SECONDS), self.taken

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(reporting, "RETRY_SECONDS", (0.02, 0.1))


@pytest.fixture
def webserver() -> Iterator[Webserver]:
    webserver = Webserver()
    yield webserver
    webserver.close()


@pytest.fixture
def observed(store_url: str, wanted: Wanted, now: dt.datetime) -> Iterator[JobStore]:
    """A store with twenty queued jobs."""
    store = JobStore.open(store_url, lease=LEASE, max_attempts=2, observed=True)
    store.enqueue([wanted(day) for day in range(1, 21)], now=now)
    yield store
    store.close()


@pytest.fixture
def start(observed: JobStore, now: dt.datetime) -> Iterator[Callable[[str], Reporter]]:
    started: list[Reporter] = []

    def start_(url: str) -> Reporter:
        started.append(Reporter(observed.outbox, url, clock=lambda: now))
        started[-1].start()
        return started[-1]

    yield start_
    for reporter in started:
        reporter.close()


Start = Callable[[str], Reporter]


def values(reporter: Reporter) -> dict[str, Any]:
    return {
        sample.name.removeprefix("gardener_outbox_"): sample.value
        for metric in reporter.collect()
        for sample in metric.samples
    }


def test_observations_are_delivered_in_order(
    observed: JobStore, webserver: Webserver, start: Start, now: dt.datetime
) -> None:
    reporter = start(webserver.url)
    for minute in range(20):
        observed.lease(1, parser="p", now=now + dt.timedelta(minutes=minute))
    webserver.wait_for(20)
    assert [partition for _, partition, _ in webserver.taken] == [
        f"2024-03-{day:02}" for day in range(1, 21)
    ]
    assert webserver.taken[0] == (
        "/report_asset_observation/parsed/ndt/ndt7",
        "2024-03-01",
        "Attempt 1 handed out to parser p",
    )
    until(lambda: observed.outbox.backlog().count == 0)
    assert reporter.state() == "delivered"
    assert values(reporter) == {
        "pending": 0,
        "oldest_seconds": 0,
        "delivered_total": 20,
        "failures_total": 0,
        "dropped_total": 0,
    }


@pytest.mark.parametrize("code", [302, 401, 404, 500, 503])
def test_a_webserver_that_does_not_take_them_is_tried_again(
    observed: JobStore, webserver: Webserver, start: Start, now: dt.datetime, code: int
) -> None:
    webserver.code = lambda partition: code if partition == "2024-03-03" else 200
    reporter = start(webserver.url)
    observed.lease(5, now=now)
    webserver.wait_for(2)
    until(lambda: values(reporter)["failures_total"] >= 3)
    assert len(webserver.taken) == 2, "nothing overtakes"
    assert reporter.state() == (
        "not delivered since 2024-03-02 10:30 UTC, tried again:"
        f" the webserver answers {code}, expected 200"
    )
    assert values(reporter)["pending"] == 3
    webserver.code = lambda _: 200
    webserver.wait_for(5)
    assert [partition[-2:] for _, partition, _ in webserver.taken] == ["01", "02", "03", "04", "05"]
    until(lambda: reporter.state() == "delivered")


def test_a_webserver_that_is_down_gets_them_afterwards(
    observed: JobStore, start: Start, now: dt.datetime
) -> None:
    away = Webserver()
    away.close()
    reporter = start(away.url)
    observed.lease(3, now=now)
    until(lambda: values(reporter)["failures_total"] >= 2)
    assert "the webserver does not answer (ConnectionError)" in reporter.state()
    assert "127.0.0.1" not in reporter.state()
    back = Webserver(away.port)
    try:
        back.wait_for(3)
        assert [partition[-2:] for _, partition, _ in back.taken] == ["01", "02", "03"]
    finally:
        back.close()


def test_what_dagster_refuses_does_not_hold_up_the_rest(
    observed: JobStore, webserver: Webserver, start: Start, now: dt.datetime
) -> None:
    webserver.code = lambda partition: 400 if partition == "2024-03-02" else 200
    reporter = start(webserver.url)
    observed.lease(3, now=now)
    webserver.wait_for(2)
    until(lambda: observed.outbox.backlog().count == 0)
    assert [partition[-2:] for _, partition, _ in webserver.taken] == ["01", "03"]
    assert values(reporter)["dropped_total"] == 1


def test_of_two_sidecars_one_delivers_and_the_other_takes_over(
    observed: JobStore, webserver: Webserver, start: Start, now: dt.datetime
) -> None:
    first = start(webserver.url)
    observed.lease(2, now=now)
    webserver.wait_for(2)
    second = start(webserver.url)
    observed.lease(2, now=now)
    webserver.wait_for(4)
    until(lambda: observed.outbox.backlog().count == 0)
    assert values(first)["delivered_total"] == 4
    first.close()
    observed.lease(2, now=now)
    webserver.wait_for(6)
    until(lambda: observed.outbox.backlog().count == 0)
    assert values(second)["delivered_total"] == 2
    assert len(webserver.taken) == 6, "none came twice"


def test_what_waits_for_long_is_dropped(
    observed: JobStore, webserver: Webserver, start: Start, now: dt.datetime
) -> None:
    webserver.code = lambda _: 503
    observed.lease(1, now=now - dt.timedelta(days=8))
    observed.lease(1, now=now)
    reporter = start(webserver.url)
    until(lambda: values(reporter)["dropped_total"] == 1)
    assert values(reporter)["pending"] == 1
    webserver.code = lambda _: 200
    webserver.wait_for(1)
    assert [partition for _, partition, _ in webserver.taken] == ["2024-03-02"]
