"""The parts inside the container image, as a user that is not root. ``make image-test`` runs it.

With docker or podman the root file system is read-only. buildah, which needs no running engine,
runs the commands in a chroot.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import requests
from postgres import free_port, postgresql
from waiting import until

pytestmark = pytest.mark.image
IMAGE = os.environ.get("IMAGE", "gardener:latest")
CONFIG = (Path(__file__).parent.parent.parent / "deploy/kubernetes/config.yml").read_text()
CODE_SERVER_SECONDS = 120.0
Command = Callable[..., list[str]]


@pytest.fixture(scope="module")
def engine() -> str:
    named = os.environ.get("CONTAINER_ENGINE")
    found = [e for e in ([named] if named else ["docker", "podman", "buildah"]) if shutil.which(e)]
    if not found:
        pytest.fail("found none of docker, podman, buildah: expected one of them")
    return found[0]


@pytest.fixture(scope="module")
def command(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """Makes the command line that runs a program in the image, on this machine's network."""
    folder = tmp_path_factory.mktemp("image")
    (folder / "config.yml").write_text(CONFIG)
    folder.chmod(0o755)
    mount = f"{folder}:/etc/gardener:ro"

    if engine != "buildah":

        def run(program: Sequence[str], **environment: str) -> list[str]:
            variables = [f"--env={name}={value}" for name, value in environment.items()]
            return [
                engine, "run", "--rm", "--read-only", "--tmpfs=/tmp", "--network=host",
                f"--volume={mount}", *variables, IMAGE, *program,
            ]  # fmt: skip

        yield run
        return
    made = subprocess.run(
        ["buildah", "from", "--pull-never", IMAGE], capture_output=True, text=True, check=True
    )
    container = made.stdout.strip()

    def run_in_chroot(program: Sequence[str], **environment: str) -> list[str]:
        variables = [f"--env={name}={value}" for name, value in environment.items()]
        return [
            "buildah", "run", "--isolation=chroot", f"--volume={mount}", *variables, container,
            "--", *program,
        ]  # fmt: skip

    try:
        yield run_in_chroot
    finally:
        subprocess.run(["buildah", "rm", container], capture_output=True, check=True)


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    port = free_port()
    with postgresql("fsync=off", "listen_addresses=127.0.0.1", f"port={port}"):
        yield f"postgresql://gardener@127.0.0.1:{port}/postgres"


def output(line: Sequence[str]) -> str:
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@contextmanager
def running(line: Sequence[str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as file:
        process = subprocess.Popen(line, stdout=file, stderr=file)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_it_is_not_root(command: Command) -> None:
    assert output(command(["id", "-u"])).strip() == "10001"


def test_help(command: Command) -> None:
    text = output(command(["gardener", "--help"]))
    assert {"api", "migrate", "import-state", "backfill", "status"} <= set(text.split())


def test_the_sidecar_is_ready_on_postgresql(
    command: Command, database: str, tmp_path: Path
) -> None:
    ports = [free_port() for _ in range(3)]
    program = [
        "gardener", "api", f"--port={ports[0]}", f"--status-port={ports[1]}",
        f"--metrics-port={ports[2]}",
    ]  # fmt: skip
    environment = {"GARDENER_DATABASE_URL": database}
    refused = subprocess.run(
        command(program, **environment), capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert "run `gardener migrate` once" in refused.stderr
    print(output(command(["gardener", "migrate"], **environment)))
    with running(command(program, **environment), tmp_path / "log") as process:
        answer = wait_for(f"http://127.0.0.1:{ports[0]}/ready", process, tmp_path / "log")
        print(answer.text)
        assert answer.status_code == 200
        assert requests.get(f"http://127.0.0.1:{ports[1]}/", timeout=10).ok
        assert (
            "gardener_jobs_total"
            in requests.get(f"http://127.0.0.1:{ports[2]}/metrics", timeout=10).text
        )


def wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> requests.Response:
    answers: list[requests.Response] = []

    def is_answered() -> bool:
        assert process.poll() is None, log.read_text()
        with suppress(requests.ConnectionError):
            answers.append(requests.get(url, timeout=5))
        return bool(answers)

    until(is_answered, f"{url} does not answer")
    return answers[0]


def test_the_code_server_answers_its_health_check(
    command: Command, database: str, tmp_path: Path
) -> None:
    port = str(free_port())
    environment = {
        "GARDENER_DATABASE_URL": database,
        "GARDENER_PROJECT": "p",
        "GARDENER_INPUT_LOCATION": "b",
        "DAGSTER_HOME": "/tmp",  # noqa: S108 - in the container, without a dagster.yaml
    }
    program = ["dagster", "code-server", "start", "-h", "127.0.0.1", "-p", port]
    line = command([*program, "-m", "gardener_dagster.definitions"], **environment)
    check = command(["dagster", "api", "grpc-health-check", "-h", "127.0.0.1", "-p", port])
    with running(line, tmp_path / "log") as process:

        def healthy() -> bool:
            assert process.poll() is None, (tmp_path / "log").read_text()
            done = subprocess.run(check, capture_output=True, check=False)
            return done.returncode == 0

        until(healthy, "the code server is not healthy", CODE_SERVER_SECONDS, pause=1)


def test_the_other_programs_are_there(command: Command) -> None:
    for program in ("dagster-webserver", "dagster-daemon"):
        assert re.search(r"version \d", output(command([program, "--version"])))
