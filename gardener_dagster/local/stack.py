"""The parts of the laptop stack and how they find each other: ports, folders, environment.

The same programs run in production; only the two emulators and the reference parser are local.
"""

import os
import secrets
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gardener_dagster.local.clients import PROJECT
from gardener_dagster.local.processes import Part, Processes

_FIRST = ("storage", "bigquery", "sidecar", "code server")
"""What the others talk to from their first second."""

PARSED_BUCKET = "etl-mlab-local"
PREFERRED_PORTS = {
    "dagster": 3000,
    "jobs": 8080,
    "status": 8081,
    "metrics": 9090,
    "bigquery": 9050,
    "storage": 9023,
    "code": 4000,
}


@dataclass(frozen=True, kw_only=True)
class StackSettings:
    """Where a stack lives.

    Attributes:
        home: Folder of all its data.
        config: The gardener's configuration file.
        dagster_yaml: Dagster's instance configuration.
        ports: By part.
        workers: How many reference parsers; none: parsers of your own ask the jobs API.
        faults: Whether the local BigQuery lets itself be told what to get wrong.
    """

    home: Path
    config: Path
    dagster_yaml: Path
    ports: dict[str, int]
    workers: int = 1
    faults: bool = False

    @property
    def dagster_url(self) -> str:
        """Dagster's UI."""
        return f"http://127.0.0.1:{self.ports['dagster']}"

    @property
    def jobs_url(self) -> str:
        """The jobs API."""
        return f"http://127.0.0.1:{self.ports['jobs']}"

    @property
    def status_url(self) -> str:
        """The status page."""
        return f"http://127.0.0.1:{self.ports['status']}"

    @property
    def bigquery_url(self) -> str:
        """The local BigQuery."""
        return f"http://127.0.0.1:{self.ports['bigquery']}"

    @property
    def storage_url(self) -> str:
        """The local Cloud Storage."""
        return f"http://127.0.0.1:{self.ports['storage']}"

    @property
    def database_url(self) -> str:
        """The job store."""
        return f"sqlite:///{self.home / 'dagster' / 'gardener.db'}"

    @property
    def environment(self) -> dict[str, str]:
        """What every part, and a client of the stack, has in its environment."""
        own = {
            "DAGSTER_HOME": str(self.home / "dagster"),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            # Or a daemon that is up before its code server fails all backfills that are under way.
            "DAGSTER_BACKFILL_RETRY_DEFINITION_CHANGED_ERROR": "yes",
            # A launch that takes longer is a failed run; on a busy machine a minute, the default,
            # is not much.
            "DAGSTER_GRPC_TIMEOUT_SECONDS": "300",
            "GARDENER_CONFIG": str(self.config),
            "GARDENER_PROJECT": PROJECT,
            "GARDENER_INPUT_LOCATION": PARSED_BUCKET,
            "GARDENER_DATABASE_URL": self.database_url,
            "GARDENER_DAGSTER_URL": self.dagster_url,
            "GARDENER_STATUS_URL": self.status_url,
            "BIGQUERY_EMULATOR_HOST": self.bigquery_url,
            "STORAGE_EMULATOR_HOST": self.storage_url,
            "PYTHONUNBUFFERED": "1",
        }
        return dict(os.environ) | own


def choose_ports(preferred: dict[str, int] | None = None) -> dict[str, int]:
    """The usual ports, each replaced by any free one where it is taken."""
    chosen: dict[str, int] = {}
    for name, port in (preferred or PREFERRED_PORTS).items():
        free = port if _is_free(port) else 0
        while not free or free in chosen.values():
            free = _any_free()
        chosen[name] = free
    return chosen


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _any_free() -> int:
    # Below the ports that the system gives to outgoing connections: one of these could have it by
    # the time that the part starts.
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        if _is_free(port):
            return port


def build_parts(settings: StackSettings) -> Processes:
    """The processes of a stack, in the order in which they need each other."""
    ports, python = settings.ports, sys.executable
    host = "127.0.0.1"
    workspace = str(settings.home / "dagster" / "workspace.yaml")
    programs = Path(python).parent

    def part(name: str, command: list[str], alive_url: str = "") -> Part:
        return Part(
            name=name,
            command=command,
            environment=settings.environment,
            log=settings.home / "logs" / f"{name.replace(' ', '-')}.log",
            alive_url=alive_url,
        )

    parts = [
        part(
            "storage",
            [
                python, "-m", "gcp_storage_emulator", "--data-dir", str(settings.home / "storage"),
                "start", "--host", host, "--port", str(ports["storage"]), "--quiet",
            ],
            f"{settings.storage_url}/storage/v1/b?project={PROJECT}",
        ),
        part(
            "bigquery",
            [
                python, "-m", "gardener_dagster.local.bigquery", "--host", host,
                "--port", str(ports["bigquery"]), "--data", str(settings.home / "bigquery"),
                *(["--faults"] if settings.faults else []),
            ],
            f"{settings.bigquery_url}/alive",
        ),
        part(
            "sidecar",
            [
                python, "-m", "gardener_dagster.cli", "api", "--port", str(ports["jobs"]),
                "--status-port", str(ports["status"]), "--metrics-port", str(ports["metrics"]),
            ],
            f"{settings.jobs_url}/ready",
        ),
        part(
            "code server",
            [
                python, "-m", "gardener_dagster.cli", "code-server", "--host", host,
                "--port", str(ports["code"]),
            ],
            f"tcp://{host}:{ports['code']}",
        ),
        part(
            "webserver",
            [
                str(programs / "dagster-webserver"), "-w", workspace, "-h", host,
                "-p", str(ports["dagster"]),
            ],
            f"{settings.dagster_url}/server_info",
        ),
        part("daemon", [python, "-m", "gardener_dagster.cli", "daemon", "-w", workspace]),
    ]  # fmt: skip
    parts += [
        part(
            f"worker {number}" if settings.workers > 1 else "worker",
            [python, "-m", "gardener_dagster.cli", "worker", "--api", settings.jobs_url],
        )
        for number in range(1, settings.workers + 1)
    ]
    return Processes(parts)


@contextmanager
def running_stack(
    settings: StackSettings, seen: Callable[[Part], None] = lambda _: None
) -> Iterator[Processes]:
    """Starts all parts, waits until they work, and ends them on the way out.

    Raises:
        PartFailedError: A part did not come up.
    """
    _prepare(settings)
    with build_parts(settings) as processes:
        processes.start(*_FIRST)
        processes.wait_until_ready(*_FIRST, seen=seen)
        processes.start()
        rest = [part.name for part in processes.parts if part.name not in _FIRST]
        processes.wait_until_ready(*rest, seen=seen)
        yield processes


def _prepare(settings: StackSettings) -> None:
    home = settings.home / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(settings.dagster_yaml, home / "dagster.yaml")
    (home / "workspace.yaml").write_text(
        "load_from:\n"
        "  - grpc_server:\n"
        "      host: 127.0.0.1\n"
        f"      port: {settings.ports['code']}\n"
        "      location_name: gardener\n",
        encoding="utf-8",
    )
