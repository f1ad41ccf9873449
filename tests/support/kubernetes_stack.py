"""The gardener as it is deployed on Kubernetes, in processes that share the network alone.

Each process has a home, a working folder, a temporary folder and copies of its configuration files.
Runs are started by Dagster's ``K8sRunLauncher`` as pods of ``kubernetes_api``. PostgreSQL, BigQuery
and Cloud Storage are reached by address; parsers reach the sidecars through a Service.
"""

import datetime as dt
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import daily_schedule
import yaml
from dagster_instance import instance_at
from google.cloud import bigquery
from instance_files import production_yaml
from kubernetes_api import Cluster, kubernetes_api
from pgbouncer import PASSWORD, pgbouncer
from postgres import postgresql_server
from service_proxy import Service, service
from sqlalchemy import make_url
from waiting import until

from gardener_api.config import GardenerConfig, load_config
from gardener_api.store.store import JobStore
from gardener_dagster.dagster_client import DagsterClient
from gardener_dagster.local.clients import PROJECT, bigquery_client, storage_client
from gardener_dagster.local.stack.parts import PARSED_BUCKET
from gardener_dagster.local.stack.ports import PREFERRED_PORTS, choose_ports
from gardener_dagster.local.stack.processes import Part, Processes

HOME_IN_CONTAINER = "/opt/dagster/dagster_home"
_KEPT = ("PATH", "PYTHONPATH", "LANG")
_SIDECARS = ("sidecar 1", "sidecar 2")
WORKERS = ("worker 1", "worker 2")


@dataclass(frozen=True, kw_only=True)
class KubernetesStack:
    """Everything that a test asks of it."""

    folder: Path
    config: GardenerConfig
    cluster: Cluster
    processes: Processes
    sidecars: Service
    ports: Mapping[str, int]
    store: JobStore
    dagster: DagsterClient
    bigquery: bigquery.Client
    storage_url: str

    @property
    def daemon_home(self) -> Path:
        """A ``DAGSTER_HOME``, for a test's own instance."""
        return self.folder / "daemon" / "dagster_home"

    def value(self, table: str, date: dt.date, expression: str) -> int:
        """An aggregate over a partition."""
        sql = f"SELECT {expression} AS n FROM `{PROJECT}.{table}` WHERE date = @date"  # noqa: S608
        parameter = bigquery.ScalarQueryParameter("date", "DATE", date)
        config = bigquery.QueryJobConfig(query_parameters=[parameter])
        [row] = self.bigquery.query(sql, job_config=config).result()
        return int(row["n"])

    def objects(self, bucket: str) -> list[str]:
        """The names of all objects of a bucket."""
        with storage_client(self.storage_url) as client:
            return [blob.name for blob in client.list_blobs(bucket)]

    def replace(self, name: str, between: Callable[[], None] = lambda: None) -> None:
        """End a part as a deleted pod is ended, do something, and start it again."""
        part = self.processes.part(name)
        assert part.process is not None
        part.process.send_signal(signal.SIGTERM)
        part.process.wait(60)
        between()
        self._start(part)

    def kill_sidecar(self, number: int) -> None:
        """Kill a sidecar; its endpoint is not ready until it answers again."""
        part = self.processes.part(_SIDECARS[number])
        port = self.ports[_SIDECARS[number]]
        part.signal(signal.SIGKILL)
        self.sidecars.ready.remove(port)
        assert part.process is not None
        part.process.wait(60)
        self._start(part)
        self.sidecars.ready.append(port)

    def _start(self, part: Part) -> None:
        part.start()
        self.processes.wait_until_ready(part.name)


@contextmanager
def kubernetes_stack(folder: Path, config: str) -> Iterator[KubernetesStack]:
    """Start it, with the schedule *daily* off; nothing of it is left at the end.

    Args:
        folder: Empty, for the processes' folders.
        config: The gardener's configuration.
    """
    names = [*PREFERRED_PORTS, *(f"{s}{kind}" for s in _SIDECARS for kind in ("", " s", " m"))]
    ports = choose_ports(dict.fromkeys(names, 0))
    with ExitStack() as stack:
        server = stack.enter_context(postgresql_server("fsync=off", "max_connections=200"))
        database, _ = stack.enter_context(pgbouncer(server))
        sidecars = stack.enter_context(service(*(ports[name] for name in _SIDECARS)))
        environment = _environment(ports)
        secrets = {
            "gardener-database": {"GARDENER_DATABASE_URL": database},
            "dagster-postgresql": {"postgresql-password": PASSWORD},
        }
        cluster = Cluster(
            folder=folder / "pods",
            config_maps={
                "gardener-environment": environment,
                "gardener-config": {"config.yml": config},
            },
            secrets=secrets,
            moved={
                HOME_IN_CONTAINER: "dagster_home",
                str(folder / "daemon" / "dagster_home"): "dagster_home",
            },
        )
        stack.enter_context(kubernetes_api(cluster))
        port = int(make_url(database).port or 0)
        maker = _Maker(folder, config, environment | secrets["gardener-database"], cluster, port)
        parts = maker.parts(ports, sidecars.url)
        maker.run("gardener", "migrate")
        processes = stack.enter_context(Processes(parts))
        processes.start("storage", "bigquery")
        processes.wait_until_ready("storage", "bigquery")
        storage_url = environment["STORAGE_EMULATOR_HOST"]
        with storage_client(storage_url) as client:
            client.create_bucket(maker.instance["compute_logs"]["config"]["bucket"])
        processes.start("code server", *_SIDECARS)
        processes.wait_until_ready("code server", *_SIDECARS, timeout=200)
        processes.start()
        processes.wait_until_ready(timeout=200)
        loaded = load_config(folder / "daemon" / "etc/gardener/config.yml")
        with _emulators(storage_url), instance_at(folder / "daemon" / "dagster_home") as instance:
            until(lambda: daily_schedule.is_known(instance), "no daemon has seen the schedule")
            daily_schedule.turn_off(instance)
        store = JobStore.open(
            secrets["gardener-database"]["GARDENER_DATABASE_URL"],
            lease=loaded.tracker.timeout,
            max_attempts=loaded.tracker.max_attempts,
        )
        stack.callback(store.close)
        yield KubernetesStack(
            folder=folder,
            config=loaded,
            cluster=cluster,
            processes=processes,
            sidecars=sidecars,
            ports=ports,
            store=store,
            dagster=DagsterClient(url=environment["GARDENER_DAGSTER_URL"]),
            bigquery=stack.enter_context(bigquery_client(environment["BIGQUERY_EMULATOR_HOST"])),
            storage_url=storage_url,
        )


def emulators(stack: KubernetesStack) -> AbstractContextManager[None]:
    """Have in this process's environment what an instance of the stack needs."""
    return _emulators(stack.storage_url)


@contextmanager
def _emulators(storage_url: str) -> Iterator[None]:
    needed = {"STORAGE_EMULATOR_HOST": storage_url, "DAGSTER_PG_PASSWORD": PASSWORD}
    with mock.patch.dict(os.environ, needed):
        yield


def _environment(ports: Mapping[str, int]) -> dict[str, str]:
    """What ``deploy/kubernetes/configmap.yaml`` has, and where the emulators are."""
    manifest = Path(__file__).parent.parent.parent / "deploy/kubernetes/configmap.yaml"
    values: dict[str, str] = yaml.safe_load(manifest.read_text(encoding="utf-8"))["data"]
    host = "http://127.0.0.1"
    return values | {
        "GARDENER_PROJECT": PROJECT,
        "GARDENER_INPUT_LOCATION": PARSED_BUCKET,
        "GARDENER_DAGSTER_URL": f"{host}:{ports['dagster']}",
        "GARDENER_STATUS_URL": f"{host}:{ports[_SIDECARS[0] + ' s']}",
        "BIGQUERY_EMULATOR_HOST": f"{host}:{ports['bigquery']}",
        "STORAGE_EMULATOR_HOST": f"{host}:{ports['storage']}",
    }


class _Maker:
    """Makes the parts, each with folders and an environment of its own."""

    def __init__(
        self,
        folder: Path,
        config: str,
        environment: Mapping[str, str],
        cluster: Cluster,
        database_port: int,
    ) -> None:
        self._folder, self._config, self._environment = folder, config, environment
        kubeconfig = folder / "kubeconfig"
        cluster.write_kubeconfig(kubeconfig)
        self.instance = production_yaml(port=database_port, kubeconfig=kubeconfig)
        # Sooner than in production: a test does not wait for a node.
        self.instance["run_monitoring"]["poll_interval_seconds"] = 5

    def run(self, *command: str) -> None:
        """Run a command to its end, as a Job does."""
        part = self._part("migrate", list(command))
        done = subprocess.run(
            part.command, env=dict(part.environment), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def parts(self, ports: Mapping[str, int], jobs_url: str) -> list[Part]:
        """All parts; none is started."""
        python, host = sys.executable, "127.0.0.1"
        data = self._folder / "data"
        parts = [
            self._part(
                "storage",
                [python, "-m", "gardener_dagster.local.storage_server",
                 f"--port={ports['storage']}", f"--data={data / 'storage'}"],
                f"http://{host}:{ports['storage']}/storage/v1/b?project={PROJECT}",
            ),
            self._part(
                "bigquery",
                [python, "-m", "gardener_dagster.local.bigquery",
                 f"--port={ports['bigquery']}", f"--data={data / 'bigquery'}", "--faults"],
                f"http://{host}:{ports['bigquery']}/alive",
            ),
            self._part(
                "code server",
                ["dagster", "code-server", "start", "-h", host, "-p", str(ports["code"]),
                 "-m", "gardener_dagster.definitions"],
                f"tcp://{host}:{ports['code']}",
                DAGSTER_CURRENT_IMAGE="gardener:latest",  # as the chart sets it
            ),
        ]  # fmt: skip
        for name in _SIDECARS:
            options = [f"--port={ports[name]}", f"--status-port={ports[name + ' s']}"]
            command = ["gardener", "api", *options, f"--metrics-port={ports[name + ' m']}"]
            parts.append(self._part(name, command, f"http://{host}:{ports[name]}/ready"))
        workspace = yaml.safe_dump(
            {"load_from": [{"grpc_server": {
                "host": host, "port": ports["code"], "location_name": "gardener"}}]}
        )  # fmt: skip
        for name, command in (
            ("webserver", ["dagster-webserver", "-h", host, "-p", str(ports["dagster"])]),
            ("daemon", ["dagster-daemon", "run"]),
        ):
            folder = self._folder / name
            url = f"http://{host}:{ports['dagster']}/server_info" if name == "webserver" else ""
            parts.append(self._part(name, [*command, "-w", str(folder / "workspace.yaml")], url))
            (folder / "workspace.yaml").write_text(workspace, encoding="utf-8")
        for name in WORKERS:
            command = ["gardener", "worker", "--api", jobs_url]
            parts.append(self._part(name, command, STORAGE_EMULATOR_HOST=self._storage))
        return parts

    @property
    def _storage(self) -> str:
        return self._environment["STORAGE_EMULATOR_HOST"]

    def _part(self, name: str, command: list[str], alive_url: str = "", **more: str) -> Part:
        folder = self._folder / name.replace(" ", "-")
        for made in ("home", "work", "temporary", "dagster_home", "etc/gardener"):
            (folder / made).mkdir(parents=True)
        config = folder / "etc/gardener/config.yml"
        config.write_text(self._config, encoding="utf-8")
        instance = yaml.safe_dump(self.instance)
        (folder / "dagster_home/dagster.yaml").write_text(instance, encoding="utf-8")
        kept = {variable: os.environ[variable] for variable in _KEPT if variable in os.environ}
        own = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "temporary"),
            "DAGSTER_HOME": str(folder / "dagster_home"),
            "GARDENER_CONFIG": str(config),
            "DAGSTER_PG_PASSWORD": PASSWORD,
            "PYTHONUNBUFFERED": "1",
        }
        return Part(
            name=name,
            command=["env", f"--chdir={folder / 'work'}", *command],
            environment=kept | dict(self._environment) | own | more,
            log=folder / "log",
            alive_url=alive_url,
        )
