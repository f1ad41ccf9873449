"""A stand-in for the Kubernetes API: Jobs, each of one Pod, whose container is a process here.

What Dagster's ``K8sRunLauncher`` and its client call: Jobs and Pods are created, read, listed and
deleted. A pod's process has a home, a working folder, a temporary folder and an environment of its
own; its config maps and secrets are read as Kubernetes reads them. It is evicted as Kubernetes does
it: SIGTERM to its first process, the grace period, SIGKILL to all.
"""

import datetime as dt
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

Json = dict[str, Any]
_JOBS = re.compile(r"/apis/batch/v1/namespaces/([\w-]+)/jobs(?:/([\w.-]+))?(?:/status)?")
_PODS = re.compile(r"/api/v1/namespaces/([\w-]+)/pods(?:/([\w.-]+))?(/log)?")
_EVENTS = re.compile(r"/api/v1/namespaces/([\w-]+)/events")
_GRACE_SECONDS = 30
_KEPT = ("PATH", "PYTHONPATH", "LANG")
"""What an image would have: the programs."""


@dataclass
class Pod:
    """A Job, its one pod and its process."""

    job: Json
    folder: Path
    process: "subprocess.Popen[bytes]"
    started: str  # as Kubernetes writes times
    evicted: bool = False
    deleted: bool = False

    @property
    def name(self) -> str:
        return str(self.job["metadata"]["name"])

    @property
    def labels(self) -> Mapping[str, str]:
        labels: Mapping[str, str] = self.job["spec"]["template"]["metadata"]["labels"]
        return labels

    @property
    def spec(self) -> Json:
        spec: Json = self.job["spec"]["template"]["spec"]
        return spec

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def as_job(self) -> Json:
        count = {"active": 1} if self.runs else {self._outcome.lower(): 1}
        return self.job | {"status": {**count, "startTime": self.started}}

    def as_pod(self) -> Json:
        labels = {**self.labels, "job-name": self.name}
        status: Json = {
            "phase": "Running" if self.runs else self._outcome,
            "startTime": self.started,
            "containerStatuses": [self._container_status()],
        }
        if self.evicted:
            status["reason"] = "Evicted"
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": self.name, "labels": labels},
            "spec": self.spec,
            "status": status,
        }

    def end(self) -> None:
        """SIGTERM, the grace period, SIGKILL."""
        grace = self.spec.get("terminationGracePeriodSeconds", _GRACE_SECONDS)
        if self.runs:
            self.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + grace
        while self.runs and time.monotonic() < deadline:
            time.sleep(0.05)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _container_status(self) -> Json:
        [container] = self.spec["containers"]
        code = self.process.returncode
        state: Json = {"running": {"startedAt": self.started}}
        if not self.runs:
            state = {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}}
        return {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": self.runs,
            "restartCount": 0,
            "state": state,
        }

    @property
    def _outcome(self) -> str:
        return "Succeeded" if self.process.returncode == 0 and not self.evicted else "Failed"


@dataclass
class Cluster:
    """The cluster: what runs there, and the config maps and secrets of its one namespace.

    Attributes:
        folder: For the pods' folders.
        config_maps: By name, the values by key.
        secrets: Likewise.
        moved: Paths that stand for the same in every container, as their processes have them here,
            by the path in a pod's own folder that they become.
    """

    folder: Path
    config_maps: Mapping[str, Mapping[str, str]]
    secrets: Mapping[str, Mapping[str, str]]
    moved: Mapping[str, str]
    url: str = ""
    pods: dict[str, Pod] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def pods_of_run(self, run_id: str) -> list[Pod]:
        """The pods that were made for a Dagster run."""
        return [pod for pod in self.pods.values() if pod.labels.get("dagster/run-id") == run_id]

    def evict(self, pod: Pod) -> None:
        """Evict a pod, as a node that is drained does."""
        pod.evicted = True
        pod.end()

    def write_kubeconfig(self, path: Path) -> None:
        """Write the configuration of a client."""
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path.write_text(yaml.safe_dump(content), encoding="utf-8")

    def create(self, job: Json) -> Pod | None:
        """Start a Job's pod; None if there is a Job of that name."""
        with self._lock:
            name = job["metadata"]["name"]
            if name in self.pods:
                return None
            self.pods[name] = pod = self._start(job)
            return pod

    def delete(self, name: str) -> None:
        """Delete a Job and its pod, whose process has its grace period."""
        pod = self.pods[name]
        pod.deleted = True
        threading.Thread(target=pod.end, daemon=True).start()

    def found(self, query: Mapping[str, list[str]]) -> list[Pod]:
        """The pods that are not deleted and match the selectors."""
        pods = [pod for pod in self.pods.values() if not pod.deleted]
        for selector in query.get("labelSelector", []) + query.get("fieldSelector", []):
            key, _, value = selector.partition("=")
            assert key in ("job-name", "metadata.name"), f"no selector here: {selector}"
            pods = [pod for pod in pods if pod.name == value]
        return pods

    def close(self) -> None:
        """End all processes."""
        for pod in self.pods.values():
            if pod.runs:
                os.killpg(pod.process.pid, signal.SIGKILL)
                pod.process.wait()

    def _start(self, job: Json) -> Pod:
        spec = job["spec"]["template"]["spec"]
        [container] = spec["containers"]
        folder = self.folder / job["metadata"]["name"]
        paths = {path: str(folder / name) for path, name in self.moved.items()}
        volumes = {volume["name"]: volume for volume in spec.get("volumes") or []}
        for mount in container.get("volumeMounts") or []:
            target = folder / mount["mountPath"].lstrip("/")
            target.mkdir(parents=True, exist_ok=True)
            paths[mount["mountPath"]] = str(target)
            source = volumes[mount["name"]].get("configMap")
            for key, text in self.config_maps[source["name"]].items() if source else ():
                (target / key).write_text(text, encoding="utf-8")
        environment = self._environment(container)
        values = {name: _moved(value, paths) for name, value in environment.items()}
        for name in ("home", "work", "temporary"):
            (folder / name).mkdir(parents=True)
        own = {"HOME": str(folder / "home"), "TMPDIR": str(folder / "temporary")}
        # The arguments are JSON: the path of the launcher's home stands in it.
        arguments = [_replaced(argument, self.moved, folder) for argument in container["args"]]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                arguments,
                cwd=folder / "work",
                env={name: os.environ[name] for name in _KEPT if name in os.environ}
                | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
                | values
                | own,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        started = dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return Pod(job=job, folder=folder, process=process, started=started)

    def _environment(self, container: Json) -> dict[str, str]:
        values: dict[str, str] = {}
        for source in container.get("envFrom") or []:
            for kind, known in (("configMapRef", self.config_maps), ("secretRef", self.secrets)):
                if source.get(kind):
                    values |= known[source[kind]["name"]]
        for entry in container.get("env") or []:
            if "value" in entry:
                values[entry["name"]] = entry["value"]
            else:
                reference = entry["valueFrom"]["secretKeyRef"]
                values[entry["name"]] = self.secrets[reference["name"]][reference["key"]]
        return values


def _moved(value: str, paths: Mapping[str, str]) -> str:
    for path, target in paths.items():
        if value == path or value.startswith(f"{path}/"):
            return target + value.removeprefix(path)
    return value


def _replaced(text: str, moved: Mapping[str, str], folder: Path) -> str:
    for path, name in moved.items():
        text = text.replace(path, str(folder / name))
    return text


@contextmanager
def kubernetes_api(cluster: Cluster) -> Iterator[None]:
    """Serve the API of a cluster; at the end all of its processes are gone."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            code, content = _answer(cluster, self.command, self.path, body)
            if code >= 400:
                cluster.refused.append(f"{self.command} {self.path}: {code}")
            data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing is logged."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        cluster.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            cluster.close()


def _answer(cluster: Cluster, method: str, url: str, body: Json) -> tuple[int, Json | str]:
    path, query = urlsplit(url).path, parse_qs(urlsplit(url).query)
    if match := _JOBS.fullmatch(path):
        return _jobs(cluster, method, match[2], query, body)
    if match := _PODS.fullmatch(path):
        return _pods(cluster, method, match[2], query, log=bool(match[3]))
    if _EVENTS.fullmatch(path) and method == "GET":
        return 200, {"kind": "EventList", "items": []}
    return _status(404, f"nothing at {path}")


def _jobs(
    cluster: Cluster, method: str, name: str | None, query: Mapping[str, list[str]], body: Json
) -> tuple[int, Json]:
    if method == "POST":
        pod = cluster.create(body)
        return (201, pod.as_job()) if pod else _status(409, "AlreadyExists")
    found = cluster.found(query if name is None else {"fieldSelector": [f"metadata.name={name}"]})
    if name is None:
        return 200, {"kind": "JobList", "items": [pod.as_job() for pod in found]}
    if not found:
        return _status(404, f"jobs {name} not found")
    if method == "DELETE":
        cluster.delete(name)
    return 200, found[0].as_job() if method == "GET" else {"kind": "Status", "status": "Success"}


def _pods(
    cluster: Cluster, method: str, name: str | None, query: Mapping[str, list[str]], *, log: bool
) -> tuple[int, Json | str]:
    if name is None:
        return 200, {"kind": "PodList", "items": [pod.as_pod() for pod in cluster.found(query)]}
    found = [pod for pod in cluster.pods.values() if pod.name == name]
    if not found:
        return _status(404, f"pods {name} not found")
    if log:
        return 200, found[0].log
    if method == "DELETE" and not found[0].deleted:
        cluster.delete(name)
    return 200, found[0].as_pod()


def _status(code: int, message: str) -> tuple[int, Json]:
    return code, {"kind": "Status", "status": "Failure", "message": message, "code": code}
