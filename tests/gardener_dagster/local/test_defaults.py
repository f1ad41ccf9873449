"""The configuration files that the package brings."""

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from gardener_api.config import load_config
from gardener_dagster.cli.main import main
from gardener_dagster.local import defaults

ROOT = Path(__file__).parents[3]


def test_init_writes_them(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    result = CliRunner().invoke(main, ["init", str(folder)])
    assert result.exit_code == 0, result.output
    assert result.output.split() == [str(folder / name) for name in defaults.NAMES]
    for name in defaults.NAMES:
        assert (folder / name).read_bytes() == (ROOT / name).read_bytes()
    assert load_config(folder / "gardener.yml").sources
    assert yaml.safe_load((folder / "dagster.yaml").read_text())["run_monitoring"]["enabled"]


def test_init_overwrites_none(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text("mine")
    result = CliRunner().invoke(main, ["init", str(tmp_path)])
    assert result.exit_code == 1
    assert (
        f"{tmp_path / 'dagster.yaml'} is there already: expected a folder without" in result.output
    )
    assert [path.name for path in tmp_path.iterdir()] == ["dagster.yaml"]


def test_the_file_of_the_folder_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert defaults.find("gardener.yml").read_bytes() == (ROOT / "gardener.yml").read_bytes()
    Path("gardener.yml").write_text("mine")
    assert defaults.find("gardener.yml").read_text() == "mine"


def test_a_configuration_that_was_named_and_is_not_there_is_an_error(tmp_path: Path) -> None:
    for command in ("dev", "demo"):
        result = CliRunner().invoke(main, [command, "--config", str(tmp_path / "none.yml")])
        assert result.exit_code == 1
        assert "none.yml" in result.output
