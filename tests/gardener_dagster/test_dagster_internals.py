"""What is used of Dagster's private modules is there, and stands in one module only."""

import ast
import importlib
import re
from pathlib import Path

import dagster as dg
import pytest

ROOT = Path(__file__).parent.parent.parent
INTERNALS = ROOT / "gardener_dagster" / "dagster_internals.py"
MOST_IMPORTS = 8
USES = {
    "BulkActionsFilter": "the sensors cannot ask which backfills start runs",
    "BulkActionStatus": "the sensors cannot ask which backfills start runs",
    "PartitionBackfill": "the sensors cannot read which partitions a backfill targets",
    "CheckRunHealthResult": "the run launcher cannot answer run monitoring: lost runs stay STARTED",
    "WorkerStatus": "the run launcher cannot answer run monitoring: lost runs stay STARTED",
}
"""By name, what stops working without it."""


def private_imports() -> dict[str, str]:
    """By name, the private module that it is imported from."""
    nodes = ast.walk(ast.parse(INTERNALS.read_text(encoding="utf-8")))
    return {
        alias.name: node.module
        for node in nodes
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dagster._")
        for alias in node.names
        if node.module
    }


def test_each_private_import_says_what_it_is_for() -> None:
    assert set(private_imports()) == set(USES)


@pytest.mark.parametrize("name", sorted(USES))
def test_dagster_still_has_it(name: str) -> None:
    module = private_imports()[name]
    found = hasattr(importlib.import_module(module), name)
    assert found, f"dagster {dg.__version__} has no {module}.{name}: {USES[name]}"


@pytest.mark.parametrize("name", sorted(USES))
def test_there_is_no_public_way_yet(name: str) -> None:
    assert not hasattr(dg, name), f"dagster now exports {name}: import it from there"


def test_no_other_module_imports_what_is_private() -> None:
    private = re.compile(r"^.*\bdagster\._.*$", re.MULTILINE)
    found = {
        path.relative_to(ROOT).as_posix(): lines
        for package in ("gardener_api", "gardener_dagster")
        for path in (ROOT / package).rglob("*.py")
        if (lines := private.findall(path.read_text(encoding="utf-8")))
    }
    assert list(found) == ["gardener_dagster/dagster_internals.py"]
    assert len(found["gardener_dagster/dagster_internals.py"]) <= MOST_IMPORTS


@pytest.mark.parametrize(
    ("method", "use"),
    [
        ("get_backfills", "the sensors cannot ask which backfills start runs"),
        ("get_backfill", "a parse cannot ask what its backfill makes"),
    ],
)
def test_the_instance_still_answers(method: str, use: str) -> None:
    assert callable(getattr(dg.DagsterInstance, method, None)), (
        f"dagster {dg.__version__}: DagsterInstance has no {method}: {use}"
    )
