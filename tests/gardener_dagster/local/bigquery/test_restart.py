"""The server as a process: what is there after it was stopped or killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from google.api_core.exceptions import Conflict, GoogleAPICallError, NotFound
from google.cloud import bigquery

SCHEMA = [bigquery.SchemaField("id", "STRING"), bigquery.SchemaField("date", "DATE")]
CONFIG = {"source_format": "NEWLINE_DELIMITED_JSON", "write_disposition": "WRITE_TRUNCATE"}
DAY = "date = '2024-03-01'"
MODULE = [sys.executable, "-m", "gardener_dagster.local.bigquery"]
ONCE: Any = None
"""No retries: the client takes None, its types do not."""


class Process:
    """The server on a folder."""

    def __init__(self, data: Path, storage_url: str, *options: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{port}"
        self.log = data.parent / "log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*MODULE, f"--port={port}", f"--data={data}", *options],
                stdout=log,
                stderr=log,
                env=os.environ | {"STORAGE_EMULATOR_HOST": storage_url},
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                requests.get(f"{self.url}/alive", timeout=5).raise_for_status()
            except requests.exceptions.ConnectionError:
                assert self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            else:
                return

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=30)


@pytest.fixture
def start(tmp_path: Path, storage_url: str) -> Iterator[Callable[..., Process]]:
    """Start a server on the test's folder."""
    started: list[Process] = []

    def begin(*options: str) -> Process:
        started.append(Process(tmp_path / "data", storage_url, *options))
        return started[-1]

    yield begin
    for one in started:
        if one.process.poll() is None:
            one.end(signal.SIGKILL)


def make_table(client: bigquery.Client) -> str:
    client.create_dataset("d")
    table = bigquery.Table(f"{client.project}.d.t", schema=SCHEMA)
    table.time_partitioning = bigquery.TimePartitioning(field="date")
    client.create_table(table)
    return f"{client.project}.d.t"


class Loads:
    """Loads rows into a partition, through a bucket."""

    def __init__(self, bucket: Any) -> None:
        self._bucket = bucket

    def __call__(
        self, client: bigquery.Client, number: int, marker: str, **names: Any
    ) -> bigquery.LoadJob:
        """Begin to load so many rows whose id is the marker."""
        line = json.dumps({"id": marker, "date": "2024-03-01"}) + "\n"
        self._bucket.blob(marker).upload_from_string(line * number)
        return client.load_table_from_uri(
            f"gs://{self._bucket.name}/{marker}",
            f"{client.project}.d.t$20240301",
            job_config=bigquery.LoadJobConfig(**CONFIG),
            **names,
        )


@pytest.fixture
def load(storage: Any, numbers: Iterator[int]) -> Loads:
    return Loads(storage.create_bucket(f"bucket-{next(numbers)}"))


def load_job(client: bigquery.Client, job_id: str) -> bigquery.LoadJob:
    job = client.get_job(job_id)
    assert isinstance(job, bigquery.LoadJob)
    return job


def result(client: bigquery.Client, job_id: str) -> list[Any]:
    job = client.get_job(job_id)
    assert isinstance(job, bigquery.QueryJob)
    return [tuple(row) for row in job.result()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_all_is_there_after_a_restart(
    start: Callable[..., Process],
    connect: Callable[[str], bigquery.Client],
    load: Loads,
    number: int,
) -> None:
    first = start()
    with connect(first.url) as client:
        table = make_table(client)
        job = load(client, 3, "a")
        job.result()
        asked = client.query("SELECT COUNT(*) AS n FROM d.t WHERE date = '2024-03-01'")
        assert result(client, asked.job_id) == [(3,)]
    code = first.end(number)
    assert code in (0, -number), first.log.read_text()
    second = start()
    with connect(second.url) as client:
        assert client.get_table(table).num_rows == 3
        assert client.get_table(f"{table}$20240301").num_rows == 3
        assert load_job(client, job.job_id).output_rows == 3
        assert result(client, asked.job_id) == [(3,)]
        with pytest.raises(Conflict):
            load(client, 1, "b", job_id=job.job_id)
    assert first.log.read_text() == ""


def test_a_job_that_was_not_done_has_failed_and_changed_nothing(
    start: Callable[..., Process], connect: Callable[[str], bigquery.Client], load: Loads
) -> None:
    first = start("--faults")
    with connect(first.url) as client:
        table = make_table(client)
        load(client, 3, "a").result()
        fault = {"job_type": "load", "action": "hang"}
        requests.post(f"{first.url}/faults", json=[fault], timeout=5).raise_for_status()
        job = load(client, 1, "b")
    first.end(signal.SIGKILL)
    second = start()
    with connect(second.url) as client:
        found = load_job(client, job.job_id)
        assert found.state == "DONE"
        assert found.error_result["reason"] == "backendError"
        assert "stopped before the job ended" in found.error_result["message"]
        assert client.get_table(table).num_rows == 3


def test_a_kill_at_any_moment_leaves_whole_partitions_and_jobs_that_agree(
    start: Callable[..., Process], connect: Callable[[str], bigquery.Client], load: Loads
) -> None:
    server = start()
    with connect(server.url) as client:
        table = make_table(client)

    def write(url: str, names: str, done: list[str]) -> None:
        """Load one row more each time, until the server is gone."""
        with connect(url) as client:
            for number in range(1, 1000):
                name = f"{names}{number}"
                try:
                    load(client, number, name, job_id=name, retry=ONCE).result(
                        retry=ONCE, timeout=5
                    )
                except (GoogleAPICallError, requests.exceptions.RequestException):
                    return
                done.append(name)

    for round_ in range(3):
        done: list[str] = []
        names = f"round-{round_}-load-"
        writer = threading.Thread(target=write, args=(server.url, names, done))
        writer.start()
        deadline = time.monotonic() + 30
        while len(done) < 5 + 3 * round_:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        server.end(signal.SIGKILL)
        writer.join()
        server = start()
        with connect(server.url) as client:
            rows = list(client.query(f"SELECT id FROM `{table}` WHERE {DAY}").result())  # noqa: S608
            [last] = {row["id"] for row in rows}
            number = int(last.rsplit("-", 1)[1])
            assert len(rows) == client.get_table(table).num_rows == number
            assert number >= len(done)
            assert load_job(client, last).error_result is None
            try:
                later = load_job(client, f"{names}{number + 1}")
            except NotFound:
                continue  # the server was killed before it accepted the next job
            assert later.error_result["reason"] == "backendError"


def test_a_folder_has_one_server(start: Callable[..., Process], tmp_path: Path) -> None:
    start()
    second = subprocess.run(
        [*MODULE, "--port=0", f"--data={tmp_path / 'data'}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 1
    assert "is in use by another process" in second.stderr
    assert "Traceback" not in second.stderr


def test_faults_are_there_only_if_the_server_was_started_with_them(
    start: Callable[..., Process],
) -> None:
    server = start()
    answer = requests.post(f"{server.url}/faults", json=[{"action": "hang"}], timeout=5)
    assert answer.status_code == 404
    assert answer.json()["error"]["errors"][0]["reason"] == "notFound"


def test_invalid_requests_get_errors_in_bigquerys_json(server: str) -> None:
    base = f"{server}/bigquery/v2/projects/p"
    for answer, code in [
        (requests.get(f"{base}/nonsense", timeout=5), 501),
        (requests.get(f"{server}/nonsense", timeout=5), 404),
        (requests.post(f"{base}/datasets", data="{", timeout=5), 400),
        (requests.post(f"{base}/datasets", data="[]", timeout=5), 400),
        (requests.post(f"{base}/datasets", json={}, timeout=5), 400),
        (requests.get(f"{base}/queries/x?timeoutMs=x", timeout=5), 400),
    ]:
        assert answer.status_code == code
        error = json.loads(answer.text)["error"]
        assert error["code"] == code
        assert error["errors"][0]["message"] == error["message"]
