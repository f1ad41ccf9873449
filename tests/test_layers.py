"""The layer contracts hold, and they are real: an upward import breaks them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__")
    for package in ("gardener_api", "gardener_dagster"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "lint-imports"
    return subprocess.run(
        [program, "--no-cache"],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_contracts_hold(copy: Path) -> None:
    result = lint(copy)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("gardener_api/jobs/job.py", "import gardener_api.store.store"),
        ("gardener_api/store/store.py", "import gardener_api.server.jobs_api"),
        ("gardener_api/store/rows.py", "import gardener_api.store.requests"),
        ("gardener_api/status/pages.py", "import gardener_api.server.app"),
        ("gardener_api/server/jobs_api.py", "import dagster"),
        ("gardener_dagster/planning/due_tables.py", "import gardener_dagster.automation.sensors"),
        ("gardener_dagster/planning/daily.py", "import dagster"),
        ("gardener_dagster/assets/keys.py", "import gardener_dagster.automation.run_requests"),
        ("gardener_dagster/assets/checks.py", "import gardener_dagster.dagster_internals"),
        ("gardener_dagster/automation/sensors.py", "import gardener_api.client"),
        ("gardener_dagster/warehouse/errors.py", "import dagster"),
        ("gardener_dagster/warehouse/errors.py", "import gardener_dagster.assets.keys"),
        ("gardener_dagster/definitions.py", "import gardener_dagster.local.samples.archives"),
    ],
)
def test_an_import_upwards_breaks_them(copy: Path, module: str, line: str) -> None:
    path = copy / module
    path.write_text(f"{path.read_text(encoding='utf-8')}\n{line}\n", encoding="utf-8")
    result = lint(copy)
    assert result.returncode == 1, result.stdout
    assert "BROKEN" in result.stdout
