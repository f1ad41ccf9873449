"""A real Prometheus scrapes a real sidecar, and the alerts of ``alerts.yml`` are asked of it."""

import datetime as dt
import json
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from job_requests import request_for
from prometheus import program
from sidecar_process import SidecarProcess
from waiting import until

from gardener_api.jobs.job import JobKey, JobState, Priority
from gardener_api.jobs.parser_calls import Update
from gardener_api.store.publishing.held import Decision, Finding
from gardener_api.store.store import JobStore

RULES = Path(__file__).parent.parent.parent / "alerts.yml"
SCRAPED_EVERY = 0.5
UNSEEN = "Prometheus did not see it"
SAMPLES = 12
"""So many of a series make what ``increase`` extrapolates small."""
BUCKET = "archive-mlab-oti"
CONFIG = """
start_date: 2024-03-01
sources:
- {{bucket: archive-mlab-oti, experiment: ndt, datatype: ndt7}}
- {{bucket: archive-mlab-oti, experiment: ndt, datatype: {other}}}
"""


def test_promtool_accepts_the_rules() -> None:
    checked = subprocess.run(
        [program("promtool"), "check", "rules", RULES], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked
    assert "6 rules found" in checked.stdout


class Prometheus:
    """A server that scrapes one sidecar."""

    def __init__(self, port: int) -> None:
        self._port = port
        groups = yaml.safe_load(RULES.read_text())["groups"]
        self._rules = {rule["alert"]: rule["expr"] for g in groups for rule in g["rules"]}

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=5):
                return True
        except (urllib.error.URLError, ConnectionError):
            return False

    def query(self, expression: str) -> list[dict[str, Any]]:
        form = urllib.parse.urlencode({"query": expression})
        url = f"http://127.0.0.1:{self._port}/api/v1/query?{form}"
        with urllib.request.urlopen(url, timeout=10) as response:
            result: list[dict[str, Any]] = json.load(response)["data"]["result"]
            return result

    def value(self, expression: str) -> float | None:
        """The value of an expression of one series; ``None`` where there is none."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else None

    def firing(self) -> dict[str, list[str]]:
        """The alerts whose condition holds, with the datatypes that they name."""
        found = {alert: self.query(rule) for alert, rule in self._rules.items()}
        return {
            alert: sorted(series["metric"].get("datatype", "") for series in result)
            for alert, result in found.items()
            if result
        }


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[SidecarProcess]:
    url = f"sqlite:///{tmp_path / 'gardener.db'}"
    process = SidecarProcess(
        url,
        tmp_path / "sidecar",
        config=CONFIG.format(other="annotation2"),
        metrics_port=free_port(),  # the same after a restart
    )
    process.start()
    yield process
    process.close()


@pytest.fixture
def prometheus(sidecar: SidecarProcess, tmp_path: Path) -> Iterator[Prometheus]:
    port = free_port()
    config = {
        "global": {
            "scrape_interval": f"{round(SCRAPED_EVERY * 1000)}ms",
            "scrape_timeout": "500ms",
        },
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {
                "job_name": "gardener",
                "static_configs": [{"targets": [f"127.0.0.1:{sidecar.metrics_port}"]}],
            }
        ],
    }
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        program("prometheus"),
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    log = tmp_path / "prometheus.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, cwd=tmp_path)
    try:
        server = Prometheus(port)
        wait_until(server.ready, process, log)
        yield server
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def store(sidecar: SidecarProcess) -> Iterator[JobStore]:
    """The same store, as Dagster's runs have it."""
    with closing(JobStore.open(sidecar.url, lease=dt.timedelta(hours=5), max_attempts=3)) as opened:
        yield opened


def wait_until(done: Callable[[], bool], process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Poll until it is done; fail the test where the process ended or time is up."""
    deadline = time.monotonic() + 30
    while not done():
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(log.read_text())
        time.sleep(0.01)


def run_job(store: JobStore, datatype: str, day: int, error: str = "") -> None:
    """Take a daily job through its life; with an error it fails in its tables."""
    now = dt.datetime.now(dt.UTC)
    key = JobKey(bucket=BUCKET, experiment="ndt", datatype=datatype, date=dt.date(2024, 3, day))
    ask = request_for(key, priority=Priority.DAILY, daily=True, join=None)
    store.enqueue([ask], now=now)
    [job] = store.lease(1, now=now)
    store.apply([Update(job.id, "postProcessing")], now=now)
    store.stage(key, JobState.LOADING, run_id="t", now=now)
    if error:
        store.fail_stage(key, error, run_id="t", now=now)
    else:
        store.stage(key, JobState.COMPLETE, run_id="t", now=now)


def hand_out(url: str, *, day: int, now: dt.datetime) -> None:
    """Hand a job out as a sidecar that reports to Dagster does."""
    lease = dt.timedelta(hours=5)
    key = JobKey(bucket=BUCKET, experiment="ndt", datatype="ndt7", date=dt.date(2024, 3, day))
    with closing(JobStore.open(url, lease=lease, max_attempts=3, observed=True)) as store:
        store.enqueue([request_for(key)], now=now)
        [_] = store.lease(1, now=now)


def test_the_alerts_are_right(
    prometheus: Prometheus,
    sidecar: SidecarProcess,
    store: JobStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed = 'sum(gardener_jobs_total{status!="success"})'
    completed = "sum(gardener_completed_total)"
    samples = 'count_over_time(gardener_jobs_total{status="starting"}[1h])'

    until(lambda: prometheus.value(samples) is not None, UNSEEN)
    assert prometheus.firing() == {"GardenerNoDailySuccess": ["annotation2", "ndt7"]}

    until(lambda: (prometheus.value(samples) or 0) > SAMPLES, UNSEEN)
    for day in (1, 2, 3):
        run_job(store, "ndt7", day, error="No such field: x")
    run_job(store, "ndt7", 4)
    until(lambda: prometheus.value(failed) == 3 and prometheus.value(completed) == 1, UNSEEN)
    assert prometheus.firing() == {"GardenerNoDailySuccess": ["annotation2"]}

    run_job(store, "annotation2", 4)
    until(lambda: prometheus.value(completed) == 2, UNSEEN)
    assert prometheus.firing() == {}, "three failures are none too many"

    run_job(store, "annotation2", 5, error="No such field: x")
    until(lambda: prometheus.value(failed) == 4, UNSEEN)
    assert prometheus.firing() == {}, "three of one, one of another"

    run_job(store, "ndt7", 5, error="No such field: x")
    until(lambda: prometheus.value(failed) == 5, UNSEEN)
    assert prometheus.firing() == {"GardenerJobsFail": ["ndt7"]}

    assert sidecar.end() == 0
    until(lambda: prometheus.value("up") == 0, UNSEEN)
    assert set(prometheus.firing()) == {"GardenerMissing", "GardenerJobsFail"}

    sidecar.config = CONFIG.format(other="hopannotation2")
    monkeypatch.setenv("GARDENER_DAGSTER_URL", f"http://127.0.0.1:{free_port()}")  # nobody there
    sidecar.start()
    until(lambda: prometheus.value("up") == 1, UNSEEN)
    firing = {
        "GardenerJobsFail": ["ndt7"],  # a restart has neither forgotten nor repeated them
        "GardenerDatatypeNotConfigured": ["annotation2"],
        "GardenerNoDailySuccess": ["hopannotation2"],
    }
    assert prometheus.firing() == firing

    hand_out(sidecar.url, day=6, now=dt.datetime.now(dt.UTC) - dt.timedelta(hours=1))
    until(lambda: prometheus.value("gardener_outbox_pending") == 1, UNSEEN)
    assert prometheus.firing() == firing | {"GardenerObservationsWait": [""]}

    finding = Finding(audit="rows_of_previous", description="7 rows, 10 before")
    key = JobKey(bucket=BUCKET, experiment="ndt", datatype="ndt7", date=dt.date(2024, 3, 1))
    now = dt.datetime.now(dt.UTC)
    number = store.held.record(
        key, "raw_ndt.ndt7", [finding], staged="load 1", job=1, run_id="r", now=now
    )
    until(lambda: prometheus.value("sum(gardener_held_partitions)") == 1, UNSEEN)
    assert prometheus.firing()["GardenerPartitionHeld"] == ["ndt7"]
    store.held.decide(number, Decision.REJECT, by="ada", now=now)
    until(lambda: prometheus.value("sum(gardener_held_partitions)") == 0, UNSEEN)
    assert "GardenerPartitionHeld" not in prometheus.firing()
