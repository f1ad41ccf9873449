"""``gardener api`` as the process that it is in production, which a test can end as it likes."""

import contextlib
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SECONDS = 30.0
CONFIG = """\
start_date: 2024-03-01
tracker: {timeout: 5h}
sources:
- bucket: archive-mlab-oti
  experiment: ndt
  datatype: ndt7
  target_datasets: {tmp: tmp_ndt, raw: raw_ndt}
"""


def wait_until(done: Callable[[], bool], process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Poll until it is done; fail the test where the process ended or time is up."""
    deadline = time.monotonic() + SECONDS
    while not done():
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(log.read_text())
        time.sleep(0.01)


@dataclass
class SidecarProcess:
    """``gardener api`` on one store and one port, however often it is killed and started."""

    url: str
    folder: Path
    config: str = CONFIG
    port: int = field(init=False)
    metrics_port: int = field(init=False)
    _ports: tuple[int, int, int] = field(init=False)
    _process: "subprocess.Popen[bytes] | None" = None

    def __post_init__(self) -> None:
        self._ports = free_ports()
        self.port, _, self.metrics_port = self._ports

    @property
    def log(self) -> str:
        """What all its processes have logged."""
        return (self.folder / "sidecar.log").read_text()

    def start(self, *options: str) -> None:
        """Start it, and wait until it is ready.

        Args:
            options: More of the command's.
        """
        (self.folder / "gardener.yml").write_text(self.config)
        names = ("--port", "--status-port", "--metrics-port")
        ports = [f"{name}={port}" for name, port in zip(names, self._ports, strict=True)]
        command = [
            sys.executable, "-m", "gardener_dagster.cli", "api", *ports,
            f"--database={self.url}", f"--config={self.folder / 'gardener.yml'}", *options,
        ]  # fmt: skip
        log = self.folder / "sidecar.log"
        with log.open("ab") as stream:
            self._process = subprocess.Popen(command, stderr=stream, stdout=stream)
        wait_until(self._ready, self._process, log)

    def kill(self) -> None:
        """End it as an out-of-memory kill would: no handler runs."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        assert self._process.wait(SECONDS) == -signal.SIGKILL, "it had ended before"

    def terminate(self) -> int:
        """Ask it to end, and wait; the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(SECONDS)

    def close(self) -> None:
        """End it, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(SECONDS)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ready", timeout=5):
                return True
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False


def free_ports() -> tuple[int, int, int]:
    """Three ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        first, second, third = (
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)
        )
        return first.getsockname()[1], second.getsockname()[1], third.getsockname()[1]
