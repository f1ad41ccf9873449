import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gardener_api.links import Links
from gardener_api.store.engine import default_store_url
from gardener_api.store.store import JobStore
from gardener_dagster.cli import api
from gardener_dagster.cli.main import main
from gardener_dagster.definitions import defs
from gardener_dagster.local.stack.parts import StackSettings

ROOT = Path(__file__).parents[3]
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
    monkeypatch.setattr(api, "serve", lambda **arguments: given.update(arguments))
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


@pytest.mark.parametrize("name", ["a b", "a?b", "a#b", "a%20b"])
def test_d40_the_store_is_in_dagsters_home_whatever_its_path(
    served: Served, run_api: Callable[..., str], tmp_path: Path, name: str
) -> None:
    home = tmp_path / name
    environment = SETTINGS | {"DAGSTER_HOME": str(home), "GARDENER_DATABASE_URL": ""}
    run_api(**environment)
    url = served["store_url"]
    with pytest.MonkeyPatch.context() as patch:
        for key, value in environment.items():
            patch.setenv(key, value)
        resources = defs().resources or {}
        assert resources["job_store"].url == url
    assert StackSettings(
        home=tmp_path, config=tmp_path, dagster_yaml=tmp_path, ports={}
    ).database_url == default_store_url(tmp_path / "dagster")
    command = ["status", "--dates", "2024-03-01"]
    result = CliRunner().invoke(main, command, env=environment)
    assert result.exit_code == 1
    assert f"there is no job store {home / 'gardener.db'}" in result.output
    home.mkdir()
    JobStore.open(url, lease=dt.timedelta(hours=5), max_attempts=3).close()
    assert (home / "gardener.db").is_file()
    result = CliRunner().invoke(main, command, env=environment)
    assert result.exit_code == 0, result.output
    assert "never asked for" in result.output


def test_a_url_that_names_no_database(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["status", "--database=nonsense"], env=SETTINGS)
    assert result.exit_code == 1
    assert result.output.startswith("Error: no database URL: 'nonsense': expected sqlite:///")
