"""BigQuery and Cloud Storage to test against, and faults between the client and the server.

Servers of this machine, or Google's with `pytest -m live` and GARDENER_LIVE_PROJECT set.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from google.cloud.storage import Client as StorageClient
from requests.adapters import HTTPAdapter


class Crash(Exception):
    """The process would have died here: nothing may catch this."""


Send = Callable[[], requests.Response]


@dataclass
class Fault:
    """What happens to some requests.

    Attributes:
        act: gets the request and a function that sends it.
        method: HTTP method; empty: any.
        path: regular expression searched in the URL's path.
        job: regular expression searched in the id of the job that is inserted.
        skip: how many of such requests are left alone first.
        times: how many requests it happens to then.
    """

    act: Callable[[requests.PreparedRequest, Send], requests.Response]
    method: str = ""
    path: str = ""
    job: str = ""
    skip: int = 0
    times: int = 1

    def takes(self, request: requests.PreparedRequest) -> bool:
        """Whether it happens to this request; counts it."""
        if (
            (self.method and request.method != self.method)
            or not re.search(self.path, str(request.path_url).split("?")[0])
            or not (not self.job or re.search(self.job, inserted_job_id(request)))
        ):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return self.times >= 0


def inserted_job_id(request: requests.PreparedRequest) -> str:
    if request.method != "POST" or not request.body or "/jobs" not in str(request.path_url):
        return ""
    return str(json.loads(request.body).get("jobReference", {}).get("jobId", ""))


def respond(request: requests.PreparedRequest, status: int, body: Any) -> requests.Response:
    response = requests.Response()
    response.status_code, response.request, response.url = status, request, str(request.url)
    response.headers["Content-Type"] = "application/json"
    response._content = json.dumps(body).encode()
    return response


def refuse(
    request: requests.PreparedRequest, status: int, reason: str, message: str
) -> requests.Response:
    error = {"code": status, "message": message, "errors": [{"reason": reason, "message": message}]}
    return respond(request, status, {"error": error})


@dataclass
class Faults:
    """Faults between the client and the server; the server's part of a request really happens."""

    pending: list[Fault] = field(default_factory=list)
    seen: list[requests.PreparedRequest] = field(default_factory=list)
    emulated_jobs: dict[str, Any] = field(default_factory=dict)

    def job_ids(self, pattern: str = "") -> list[str]:
        """Ids of the jobs that the client wanted to insert, in order."""
        ids = [inserted_job_id(request) for request in self.seen]
        return [job_id for job_id in ids if job_id and re.search(pattern, job_id)]

    def refuse(
        self,
        status: int,
        reason: str,
        *,
        method: str = "",
        path: str = "",
        skip: int = 0,
        times: int = 1,
        message: str = "no",
    ) -> None:
        """The server refuses without doing anything."""
        self.pending.append(
            Fault(
                lambda request, _: refuse(request, status, reason, message),
                method=method,
                path=path,
                skip=skip,
                times=times,
            )
        )

    def cut(
        self, *, method: str, path: str, before: bool = False, times: int = 1, job: str = ""
    ) -> None:
        """The connection is cut, after the server has done its work or before it got any."""

        def act(request: requests.PreparedRequest, send: Send) -> requests.Response:
            if not before:
                send()
            raise requests.exceptions.ConnectionError("connection reset by peer")

        self.pending.append(Fault(act, method=method, path=path, times=times, job=job))

    def fail_job(
        self, job: str, reason: str, message: str = "it failed", *, times: int = 1
    ) -> None:
        """The job is accepted and then fails, without having done anything."""
        error = {"reason": reason, "message": message}
        status = {"state": "DONE", "errorResult": error, "errors": [error]}
        self._emulate_job(job, status, times)

    def hang_job(self, job: str) -> None:
        """The job is accepted and never ends."""
        self._emulate_job(job, {"state": "RUNNING"}, 1)

    def _emulate_job(self, job: str, status: dict[str, Any], times: int) -> None:
        def act(request: requests.PreparedRequest, _: Send) -> requests.Response:
            resource = json.loads(request.body or "{}") | {"status": status, "statistics": {}}
            self.emulated_jobs[inserted_job_id(request)] = resource
            return respond(request, 200, resource)

        self.pending.append(Fault(act, method="POST", path="/jobs$", times=times, job=job))

    def crash(self, *, skip: int, after: bool) -> None:
        """The process dies at the request after so many more, before or after it takes effect."""

        def act(_: requests.PreparedRequest, send: Send) -> requests.Response:
            if after:
                send()
            raise Crash

        self.pending.append(Fault(act, skip=skip))


class FaultyAdapter(HTTPAdapter):
    """Puts faults between the client and the server."""

    def __init__(self, faults: Faults) -> None:
        super().__init__(pool_maxsize=20)
        self.faults = faults

    def send(
        self, request: requests.PreparedRequest, *args: Any, **kwargs: Any
    ) -> requests.Response:
        self.faults.seen.append(request)
        emulated = self._emulated_job(request)
        if emulated is not None:
            return emulated
        for fault in self.faults.pending:
            if fault.takes(request):
                return fault.act(
                    request, lambda: super(FaultyAdapter, self).send(request, *args, **kwargs)
                )
        return super().send(request, *args, **kwargs)

    def _emulated_job(self, request: requests.PreparedRequest) -> requests.Response | None:
        jobs = self.faults.emulated_jobs
        if inserted_job_id(request) in jobs:
            error = {
                "code": 409,
                "message": "Already Exists: Job",
                "errors": [{"reason": "duplicate"}],
            }
            return respond(request, 409, {"error": error})
        path = str(request.path_url).split("?")[0]
        if jobs and request.method == "GET" and path.endswith("/jobs"):
            running = "stateFilter=running" in str(request.path_url)
            return respond(request, 200, {"jobs": list(jobs.values()) if running else []})
        name = path.removesuffix("/cancel").rsplit("/", 1)[-1]
        if name not in jobs:
            return None
        body = {"job": jobs[name]} if path.endswith("/cancel") else jobs[name]
        return respond(request, 200, body)


Clients = tuple[bigquery.Client, bigquery.Client, StorageClient]


@dataclass(frozen=True)
class Endpoints:
    """Where BigQuery and Cloud Storage are; empty: Google's."""

    project: str
    bigquery: str = ""
    storage: str = ""


def port_of(url: str) -> str:
    return url.rsplit(":", 1)[1]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start(command: list[str], url: str, log: Path, **environment: str) -> subprocess.Popen[bytes]:
    """Starts a server and waits until it answers."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
        )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            requests.get(url, timeout=5)
        except requests.exceptions.ConnectionError:
            time.sleep(0.05)
        else:
            return process
    process.kill()
    process.wait()
    raise RuntimeError(f"{command} does not answer: {log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def local_endpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    """The local BigQuery and the Cloud Storage emulator, as processes."""
    home = tmp_path_factory.mktemp("bigquery")
    store, warehouse = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    processes = []
    try:
        processes.append(
            start(
                [
                    "gcp_storage_emulator",
                    "start",
                    f"--port={store.rsplit(':', 1)[1]}",
                    "--in-memory",
                ],
                store,
                home / "storage.log",
            )
        )
        processes.append(
            start(
                [
                    "gardener_dagster.local.bigquery",
                    f"--port={port_of(warehouse)}",
                    f"--data={home / 'data'}",
                ],
                warehouse,
                home / "bigquery.log",
                STORAGE_EMULATOR_HOST=store,
            )
        )
        yield Endpoints(project="gardener-test", bigquery=warehouse, storage=store)
    finally:
        for process in processes:
            process.kill()  # the emulator does not end by SIGTERM while it has connections
            process.wait()


@pytest.fixture(scope="session", params=["local", pytest.param("live", marks=pytest.mark.live)])
def endpoints(request: pytest.FixtureRequest) -> Endpoints:
    if request.param == "local":
        found: Endpoints = request.getfixturevalue("local_endpoints")
        return found
    project = os.environ.get("GARDENER_LIVE_PROJECT")
    if not project:
        pytest.fail("GARDENER_LIVE_PROJECT is not set: the live tests need a Google Cloud project")
    return Endpoints(project=project)


def bigquery_client(endpoints: Endpoints) -> bigquery.Client:
    if not endpoints.bigquery:
        return bigquery.Client(project=endpoints.project)
    return bigquery.Client(
        project=endpoints.project,
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": endpoints.bigquery},
    )


def storage_client(endpoints: Endpoints) -> StorageClient:
    if not endpoints.storage:
        return StorageClient(project=endpoints.project)
    return StorageClient(
        project=endpoints.project,
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": endpoints.storage},
    )


@pytest.fixture(scope="session")
def clients(
    endpoints: Endpoints,
) -> Iterator[tuple[bigquery.Client, bigquery.Client, StorageClient]]:
    looking, faulty, store = (
        bigquery_client(endpoints),
        bigquery_client(endpoints),
        storage_client(endpoints),
    )
    yield looking, faulty, store
    for client in (looking, faulty, store):
        client.close()


@pytest.fixture
def faults(clients: Clients) -> Faults:
    """Faults that the warehouse's client meets."""
    found = Faults()
    for scheme in ("http://", "https://"):
        clients[1]._http.mount(scheme, FaultyAdapter(found))
    return found


@pytest.fixture(scope="session")
def crash() -> type[Crash]:
    return Crash
