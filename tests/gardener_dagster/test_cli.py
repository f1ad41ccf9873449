import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from waiting import until

from gardener_api import app
from gardener_api.links import Links
from gardener_dagster.cli import main

ROOT = Path(__file__).parent.parent.parent
SETTINGS = {
    "GARDENER_CONFIG": str(ROOT / "gardener.yml"),
    "GARDENER_PROJECT": "p",
    "GARDENER_INPUT_LOCATION": "b",
}
Served = dict[str, Any]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Served:
    """What the sidecar was started with, in place of starting one."""
    given: Served = {}
    monkeypatch.setattr(app, "serve", lambda **arguments: given.update(arguments))
    for name in ("GARDENER_DAGSTER_URL", "GARDENER_PROJECT", "BIGQUERY_EMULATOR_HOST"):
        monkeypatch.delenv(name, raising=False)
    return given


@pytest.fixture
def run_api() -> Callable[..., str]:
    """Runs ``gardener api``; its output."""

    def run(*arguments: str, code: int = 0, **environment: str) -> str:
        command = ["api", "--config", str(ROOT / "gardener.yml"), *arguments]
        result = CliRunner().invoke(main, command, env=environment)
        assert result.exit_code == code, result.output
        return result.output

    return run


def test_what_the_status_page_links_to(served: Served, run_api: Callable[..., str]) -> None:
    run_api()
    assert served["links"] == Links()
    run_api(GARDENER_DAGSTER_URL="http://dagster:3000", GARDENER_PROJECT="mlab")
    assert served["links"] == Links(dagster_url="http://dagster:3000", project="mlab")
    run_api(GARDENER_PROJECT="local", BIGQUERY_EMULATOR_HOST="http://127.0.0.1:9050")
    assert served["links"] == Links(), "a local stack has no tables in Google's console"


def test_no_url_of_dagster(served: Served, run_api: Callable[..., str]) -> None:
    output = run_api("--dagster-url", "dagster:3000", code=1)
    assert "'dagster:3000': expected one like http://dagster:3000" in output
    assert served == {}


def test_a_code_server_without_its_settings_names_what_is_missing() -> None:
    result = CliRunner().invoke(main, ["code-server"], env=SETTINGS | {"GARDENER_PROJECT": ""})
    assert result.exit_code == 1
    assert result.output.startswith("Error: GARDENER_PROJECT is not set: expected the Google Cloud")


def test_a_code_server_does_not_share_the_port_of_another() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(main, ["code-server", f"--port={port}"], env=SETTINGS)
    assert result.exit_code == 1
    assert "Address already in use" in result.output
    assert f"'127.0.0.1', {port}" in result.output


def test_a_code_server_in_the_background_of_a_script_ends_when_it_is_told_to(
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = dict(os.environ) | SETTINGS | {"DAGSTER_HOME": str(tmp_path)}
    # What a shell does for a command with &.
    command = (
        f"trap '' INT; exec {sys.executable} -m gardener_dagster.cli code-server --port {port}"
    )
    with subprocess.Popen(["/bin/sh", "-c", command], env=environment) as process:
        try:
            until(lambda: answers(port), "it does not come up", 60)
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
