"""A sidecar process and a real dagster-webserver, which is down for a while."""

import contextlib
import datetime as dt
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import job_requests
import pytest
import requests
from dagster import AssetKey, AssetRecordsFilter, DagsterInstance
from dagster_instance import instance_at
from sidecar_process import SidecarProcess
from waiting import until

from gardener_api.client import JobsClient
from gardener_api.server.app import utc_now
from gardener_api.store.store import JobStore

KEY = AssetKey(["parsed", "ndt", "ndt7"])
DEFINITIONS = """
import dagster as dg

partitions = dg.DailyPartitionsDefinition("2024-03-01")
parsed = dg.AssetSpec(["parsed", "ndt", "ndt7"], partitions_def=partitions)
defs = dg.Definitions(assets=[parsed])
"""
SECONDS = 180.0


@dataclass
class Webserver:
    """``dagster-webserver``, which can be stopped and started again on its port."""

    home: Path
    port: int
    _process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [
            sys.executable, "-m", "dagster_webserver", "--host=127.0.0.1", f"--port={self.port}",
            f"--python-file={self.home / 'definitions.py'}",
        ]  # fmt: skip
        environment = os.environ | {"DAGSTER_HOME": str(self.home)}
        with (self.home / "webserver.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        until(self._answers, "the webserver does not answer", SECONDS)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(SECONDS)

    def _answers(self) -> bool:
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"{self.url}/server_info", timeout=SECONDS).ok
        return False


@pytest.fixture
def webserver(tmp_path: Path) -> Iterator[Webserver]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}")
    (home / "definitions.py").write_text(DEFINITIONS)
    webserver = Webserver(home, port)
    yield webserver
    webserver.stop()


@pytest.fixture
def sidecar(tmp_path: Path, webserver: Webserver) -> Iterator[SidecarProcess]:
    store = f"sqlite:///{tmp_path / 'gardener.db'}"
    sidecar = SidecarProcess(store, tmp_path / "sidecar", timeout="2s")
    sidecar.start(f"--dagster-url={webserver.url}")
    yield sidecar
    sidecar.close()


def observed(instance: DagsterInstance, date: str) -> list[str]:
    """The descriptions of a partition's observations, the oldest first."""
    of = AssetRecordsFilter(asset_key=KEY, asset_partitions=[date])
    records = instance.fetch_observations(of, limit=1000, ascending=True).records
    return [str(record.asset_observation.description) for record in records]  # type: ignore[union-attr]  # an observation


def metric(sidecar: SidecarProcess, name: str) -> float:
    text = requests.get(f"{sidecar.metrics}/metrics", timeout=SECONDS).text
    [value] = re.findall(rf"^gardener_outbox_{name} (\S+)$", text, re.MULTILINE)
    return float(value)


def test_observations_of_a_time_when_the_webserver_was_down_arrive_in_order(
    webserver: Webserver, sidecar: SidecarProcess
) -> None:
    store = JobStore.open(sidecar.url, lease=dt.timedelta(seconds=2), max_attempts=3)
    store.enqueue([job_requests.wanted(dt.date(2024, 3, day)) for day in (1, 2)], now=utc_now())
    store.close()
    client = JobsClient(sidecar.jobs)

    # Nobody has started the webserver yet. One attempt is given up, the other's lease ends.
    first, second = client.next(), client.next()
    assert first is not None
    assert second is not None
    client.error(first.id, "no disk")
    again = client.next()
    assert again is not None
    assert again.id.endswith("~1.2")
    until(lambda: metric(sidecar, "failures_total") >= 1, "no try has failed", SECONDS)
    ready = requests.get(f"{sidecar.jobs}/ready", timeout=SECONDS)
    assert ready.status_code == 200, "parsers do not depend on Dagster"
    assert "observations for Dagster: not delivered since" in ready.text
    assert str(webserver.port) not in ready.text
    assert metric(sidecar, "pending") >= 4

    webserver.start()
    until(lambda: metric(sidecar, "pending") == 0, "they were not delivered", SECONDS)
    with instance_at(webserver.home) as instance:
        said = observed(instance, "2024-03-01")
        assert said[:3] == [
            "Attempt 1 handed out to parser 127.0.0.1",
            "Attempt 1 lost: its parser reported an error",
            "Attempt 2 handed out to parser 127.0.0.1",
        ]
        until(
            lambda: observed(instance, "2024-03-02")[-1] == "Attempt 1 lost: its lease ended",
            "the end of the lease was not observed",
            SECONDS,
        )

        # Down again, while jobs are handed out until they fail.
        webserver.stop()
        while (job := client.next()) is not None:
            client.error(job.id, "no disk")
        until(lambda: metric(sidecar, "pending") >= 3, "nothing waits", SECONDS)
        webserver.start()
        until(lambda: metric(sidecar, "pending") == 0, "they were not delivered", SECONDS)
        for date in ("2024-03-01", "2024-03-02"):
            said = observed(instance, date)
            assert said[-1] == "Parse failed in attempt 3, the last one"
            attempts = [int(found) for text in said for found in re.findall(r"ttempt (\d)", text)]
            assert attempts == sorted(attempts)
            assert attempts.count(3) == 3
    ready = requests.get(f"{sidecar.jobs}/ready", timeout=SECONDS)
    assert "observations for Dagster: delivered" in ready.text
