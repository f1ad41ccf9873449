"""The server as a process: what it keeps when it is stopped, or killed."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import requests
from google.api_core.exceptions import Conflict, GoogleAPICallError
from google.cloud import bigquery

SCHEMA = [bigquery.SchemaField("id", "STRING"), bigquery.SchemaField("date", "DATE")]
CONFIG = {"source_format": "NEWLINE_DELIMITED_JSON", "write_disposition": "WRITE_TRUNCATE"}
MODULE = [sys.executable, "-m", "gardener_dagster.local.bigquery"]
ONCE: Any = None
"""No retries: the client takes None, its types do not."""


class Process:
    """The server on a folder."""

    def __init__(self, data: Path, *options: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{port}"
        self.log = data.parent / "log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*MODULE, f"--port={port}", f"--data={data}", *options], stdout=log, stderr=log
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
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts a server on the test's folder."""
    started: list[Process] = []

    def begin(*options: str) -> Process:
        started.append(Process(tmp_path / "data", *options))
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


def load(client: bigquery.Client, rows: Sequence[Any], **names: Any) -> bigquery.LoadJob:
    config = bigquery.LoadJobConfig(schema=SCHEMA, **CONFIG)
    destination = f"{client.project}.d.t$20240301"
    return client.load_table_from_json(rows, destination, job_config=config, **names)


def rows_of(number: int, marker: str) -> list[Any]:
    return [{"id": marker, "date": "2024-03-01"}] * number


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
    start: Callable[..., Process], connect: Callable[[str], bigquery.Client], number: int
) -> None:
    first = start()
    with connect(first.url) as client:
        table = make_table(client)
        job = load(client, rows_of(3, "a"))
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
            load(client, rows_of(1, "b"), job_id=job.job_id)
    assert first.log.read_text() == ""


def test_a_job_that_was_not_done_has_failed_and_changed_nothing(
    start: Callable[..., Process], connect: Callable[[str], bigquery.Client]
) -> None:
    first = start("--faults")
    with connect(first.url) as client:
        table = make_table(client)
        load(client, rows_of(3, "a")).result()
        fault = {"job_type": "load", "action": "hang"}
        requests.post(f"{first.url}/faults", json=[fault], timeout=5).raise_for_status()
        job = load(client, rows_of(1, "b"))
    first.end(signal.SIGKILL)
    second = start()
    with connect(second.url) as client:
        found = load_job(client, job.job_id)
        assert found.state == "DONE"
        assert found.error_result["reason"] == "backendError"
        assert "stopped before the job ended" in found.error_result["message"]
        assert client.get_table(table).num_rows == 3


def test_a_kill_at_any_moment_leaves_whole_partitions_and_jobs_that_agree(
    start: Callable[..., Process], connect: Callable[[str], bigquery.Client]
) -> None:
    server = start()
    with connect(server.url) as client:
        table = make_table(client)

    def write(url: str, done: list[str]) -> None:
        """Loads one row more each time, until the server is gone."""
        with connect(url) as client:
            for number in range(1, 1000):
                name = f"load-{number}"
                try:
                    load(client, rows_of(number, name), job_id=name, num_retries=0).result(
                        retry=ONCE, timeout=5
                    )
                except (GoogleAPICallError, requests.exceptions.RequestException):
                    return
                done.append(name)

    for round_ in range(3):
        done: list[str] = []
        writer = threading.Thread(target=write, args=(server.url, done))
        writer.start()
        deadline = time.monotonic() + 30
        while len(done) < 5 + 3 * round_:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        server.end(signal.SIGKILL)
        writer.join()
        server = start()
        with connect(server.url) as client:
            rows = list(client.list_rows(table, selected_fields=SCHEMA))
            [last] = {row["id"] for row in rows}
            number = int(last.removeprefix("load-"))
            assert len(rows) == client.get_table(table).num_rows == number
            assert number >= len(done)
            assert load_job(client, last).error_result is None
            for job in client.list_jobs():
                assert job.state == "DONE"
                assert (job.error_result is None) == (int(job.job_id[5:]) <= number)
                client.delete_job_metadata(job.job_id)


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


def test_a_request_that_is_none_gets_an_error_of_bigquerys_shape(server: str) -> None:
    base = f"{server}/bigquery/v2/projects/p"
    for answer, code in [
        (requests.get(f"{base}/nonsense", timeout=5), 404),
        (requests.put(f"{base}/jobs", timeout=5), 405),
        (requests.post(f"{base}/datasets", data="{", timeout=5), 400),
        (requests.post(f"{base}/datasets", data="[]", timeout=5), 400),
        (requests.post(f"{base}/datasets", json={}, timeout=5), 400),
        (requests.get(f"{base}/datasets?maxResults=x", timeout=5), 400),
        (requests.post(f"{server}/upload/bigquery/v2/projects/p/jobs", timeout=5), 400),
    ]:
        assert answer.status_code == code
        error = json.loads(answer.text)["error"]
        assert error["code"] == code
        assert error["errors"][0]["message"] == error["message"]
