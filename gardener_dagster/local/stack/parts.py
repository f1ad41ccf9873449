"""The parts of the laptop stack and how they find each other: ports, folders, environment.

The same programs run in production; only the two emulators and the reference parser are local.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from sqlalchemy.engine import make_url

from gardener_api.store.engine import default_store_url
from gardener_dagster.local.clients import PROJECT
from gardener_dagster.local.stack.processes import Part, Processes

_FIRST = ("storage", "bigquery", "sidecar", "code server")
"""Parts that the other parts connect to as soon as they start."""

PARSED_BUCKET = "etl-mlab-local"


@dataclass(frozen=True, kw_only=True)
class StackSettings:
    """Settings of a stack.

    Attributes:
        home: Folder of all its data.
        config: The gardener's configuration file.
        dagster_yaml: Dagster's instance configuration.
        ports: Port of each part.
        workers: Number of reference parsers; 0: other parsers take jobs from the jobs API.
        faults: Whether errors can be injected into the local BigQuery.
        lock: The file descriptor that holds the lock of ``home``; ``None``: it is not locked.
        postgresql: URL of the database that Dagster and the job store share; empty: SQLite files.
    """

    home: Path
    config: Path
    dagster_yaml: Path
    ports: dict[str, int]
    workers: int = 1
    faults: bool = False
    lock: int | None = None
    postgresql: str = ""

    @property
    def dagster_url(self) -> str:
        """URL of Dagster's UI."""
        return f"http://127.0.0.1:{self.ports['dagster']}"

    @property
    def jobs_url(self) -> str:
        """URL of the jobs API."""
        return f"http://127.0.0.1:{self.ports['jobs']}"

    @property
    def status_url(self) -> str:
        """URL of the status page."""
        return f"http://127.0.0.1:{self.ports['status']}"

    @property
    def bigquery_url(self) -> str:
        """URL of the local BigQuery."""
        return f"http://127.0.0.1:{self.ports['bigquery']}"

    @property
    def storage_url(self) -> str:
        """URL of the local Cloud Storage."""
        return f"http://127.0.0.1:{self.ports['storage']}"

    @property
    def database_url(self) -> str:
        """URL of the job store's database."""
        return self.postgresql or default_store_url(self.home / "dagster")

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables of every part and of clients of the stack."""
        own = {
            "DAGSTER_HOME": str(self.home / "dagster"),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            # Otherwise a daemon that starts before its code server fails all running backfills.
            "DAGSTER_BACKFILL_RETRY_DEFINITION_CHANGED_ERROR": "yes",
            # A run whose launch takes longer fails; the default of one minute is too short on a
            # busy machine.
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


def build_parts(settings: StackSettings) -> Processes:
    """Return the processes of a stack, each after those that it depends on."""
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
                python, "-m", "gardener_dagster.local.storage_server", "--host", host,
                "--port", str(ports["storage"]), "--data", str(settings.home / "storage"),
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
                python, "-m", "gardener_dagster.cli.main", "api", "--port", str(ports["jobs"]),
                "--status-port", str(ports["status"]), "--metrics-port", str(ports["metrics"]),
            ],
            f"{settings.jobs_url}/ready",
        ),
        part(
            "code server",
            [
                str(programs / "dagster"), "code-server", "start", "-h", host,
                "-p", str(ports["code"]), "-m", "gardener_dagster.definitions",
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
        part("daemon", [str(programs / "dagster-daemon"), "run", "-w", workspace]),
    ]  # fmt: skip
    parts += [
        part(
            f"worker {number}" if settings.workers > 1 else "worker",
            [python, "-m", "gardener_dagster.cli.main", "worker", "--api", settings.jobs_url],
        )
        for number in range(1, settings.workers + 1)
    ]
    return Processes(parts, keep_open=() if settings.lock is None else (settings.lock,))


@contextmanager
def running_stack(
    settings: StackSettings, seen: Callable[[Part], None] = lambda _: None
) -> Iterator[Processes]:
    """Start all parts, wait until they are ready, and end them on exit.

    Raises:
        PartFailedError: A part ended, or was not ready in time.
    """
    prepare_dagster_home(settings)
    with build_parts(settings) as processes:
        processes.start(*_FIRST)
        processes.wait_until_ready(*_FIRST, seen=seen)
        processes.start()
        rest = [part.name for part in processes.parts if part.name not in _FIRST]
        processes.wait_until_ready(*rest, seen=seen)
        yield processes


def prepare_dagster_home(settings: StackSettings) -> None:
    """Write ``dagster.yaml`` and ``workspace.yaml`` into the stack's ``DAGSTER_HOME``."""
    home = settings.home / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    instance = settings.dagster_yaml.read_text(encoding="utf-8")
    if settings.postgresql:
        # SQLAlchemy 2.1 takes psycopg 3 for plain `postgresql`; dagster-postgres needs psycopg 2.
        url = make_url(settings.postgresql).set(drivername="postgresql+psycopg2")
        storage = {"postgres": {"postgres_url": url.render_as_string(hide_password=False)}}
        instance += yaml.safe_dump({"storage": storage})
    (home / "dagster.yaml").write_text(instance, encoding="utf-8")
    server = {"host": "127.0.0.1", "port": settings.ports["code"], "location_name": "gardener"}
    workspace = yaml.safe_dump({"load_from": [{"grpc_server": server}]})
    (home / "workspace.yaml").write_text(workspace, encoding="utf-8")
