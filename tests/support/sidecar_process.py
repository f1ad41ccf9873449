"""The sidecar as the process that it is in production, which a test can kill and start again."""

import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

SECONDS = 60.0
CONFIG = """\
start_date: 2024-03-01
tracker: {{timeout: {timeout}}}
sources:
- bucket: archive-mlab-oti
  experiment: ndt
  datatype: ndt7
  target_datasets: {{tmp: tmp_ndt, raw: raw_ndt}}
"""
_LISTENING = re.compile(r"listening on .*'jobs': (\d+), 'status': (\d+), 'metrics': (\d+)")


@dataclass
class SidecarProcess:
    """``gardener api`` on one store, however often it is killed and started.

    Attributes:
        url: Of the store.
        folder: For its configuration and its log; of its own.
        timeout: How long its leases are.
        config: Its configuration. Empty: of one source.
        port: Of the jobs API. 0: one that is free, another one each time that it starts.
        status_port: Of the status page; likewise.
        metrics_port: Of the metrics; likewise.
    """

    url: str
    folder: Path
    timeout: str = "5h"
    config: str = ""
    port: int = 0
    status_port: int = 0
    metrics_port: int = 0
    _popen: "subprocess.Popen[bytes] | None" = None

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self._config = self.folder / "gardener.yml"
        self._log = self.folder / "sidecar.log"
        self._wanted = (self.port, self.status_port, self.metrics_port)

    @property
    def jobs(self) -> str:
        """The jobs API."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def status(self) -> str:
        """The status page."""
        return f"http://127.0.0.1:{self.status_port}"

    @property
    def metrics(self) -> str:
        """The metrics."""
        return f"http://127.0.0.1:{self.metrics_port}"

    @property
    def popen(self) -> "subprocess.Popen[bytes]":
        """The process that was started last."""
        assert self._popen is not None
        return self._popen

    @property
    def log(self) -> str:
        """What it said since it was started last."""
        return self._log.read_text()

    def launch(self, *options: str) -> None:
        """Start it, and do not wait.

        Args:
            options: More of the command's.
        """
        self._config.write_text(self.config or CONFIG.format(timeout=self.timeout))
        names = ("port", "status-port", "metrics-port")
        ports = [f"--{name}={port}" for name, port in zip(names, self._wanted, strict=True)]
        command = [
            sys.executable, "-m", "gardener_dagster.cli.main", "api", *ports,
            f"--database={self.url}", f"--config={self._config}", *options,
        ]  # fmt: skip
        with self._log.open("wb") as file:
            self._popen = subprocess.Popen(command, stdout=file, stderr=file)

    def start(self, *options: str) -> None:
        """Start it, and wait until it listens; fail the test if it does not."""
        self.launch(*options)
        deadline = time.monotonic() + SECONDS
        while not (found := _LISTENING.search(self.log)):
            if self.popen.poll() is not None or time.monotonic() > deadline:
                pytest.fail(self.log)
            time.sleep(0.01)
        self.port, self.status_port, self.metrics_port = map(int, found.groups())

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send it a signal; its exit code."""
        self.popen.send_signal(number)
        return self.popen.wait(SECONDS)

    def kill(self) -> None:
        """End it as an out-of-memory kill would: no handler runs."""
        assert self.end(signal.SIGKILL) == -signal.SIGKILL, "it had ended before"

    def close(self) -> None:
        """End it, if it runs."""
        if self._popen is not None and self._popen.poll() is None:
            self.end()
