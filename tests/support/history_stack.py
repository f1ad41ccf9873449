"""The stack of the benchmarks of history: the real one, on stand-ins that answer at once."""

import contextlib
import datetime as dt
import os
import platform
import sys
from pathlib import Path

import yaml

from gardener_dagster.local.stack.parts import StackSettings, build_parts, prepare_dagster_home
from gardener_dagster.local.stack.ports import choose_ports
from gardener_dagster.local.stack.processes import Part, Processes

ROOT = Path(__file__).parent.parent.parent
FIRST = dt.date(2023, 1, 1)


def settings_of(home: Path, postgresql: str = "") -> StackSettings:
    """The stack in a folder, on ports that are free now.

    Args:
        home: The folder.
        postgresql: URL of the database of Dagster and the job store; empty: SQLite files.
    """
    names = ["dagster", "jobs", "status", "metrics", "bigquery", "code"]
    ports = choose_ports(dict.fromkeys(names, 0))
    return StackSettings(
        home=home,
        config=home / "gardener.yml",
        dagster_yaml=ROOT / "dagster.yaml",
        ports=ports | {"storage": ports["bigquery"]},
        workers=0,
        postgresql=postgresql,
    )


def write_config(
    home: Path, sources: int, *, start_date: dt.date = FIRST - dt.timedelta(days=60)
) -> None:
    """Production's sources, as many of them; sensors that look every 5 s; no historical pass."""
    production = yaml.safe_load((ROOT / "tests/fixtures/production.yml").read_text())
    changed = {
        "start_date": start_date.isoformat(),
        "monitor": {"polling_interval": "5s"},
        "history": {"enabled": False},
        "sources": production["sources"][:sources],
    }
    text = yaml.safe_dump(changed, default_flow_style=None)
    (home / "gardener.yml").write_text(text)


def build_stack(settings: StackSettings) -> Processes:
    """The parts, with stand-ins that take no time."""
    ours = [p for p in build_parts(settings).parts if p.name not in ("storage", "bigquery")]
    stand_ins = Part(
        name="stand-ins",
        command=[
            sys.executable, str(ROOT / "tests/support/instant.py"),
            "--port", str(settings.ports["bigquery"]), "--api", settings.jobs_url,
        ],
        environment=settings.environment,
        log=settings.home / "logs/stand-ins.log",
        alive_url=f"{settings.bigquery_url}/alive",
    )  # fmt: skip
    prepare_dagster_home(settings)
    return Processes([stand_ins, *ours])


def describe() -> str:
    """The machine."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):  # another system than Linux has none
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((x.partition(": ")[2] for x in lines if x.startswith("model name")), cpu)
    return (
        f"{cpu}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before;"
        f" {platform.system()} {platform.release()}, Python {platform.python_version()}"
    )


def start_in_order(processes: Processes, *names: str) -> None:
    """A daemon that is up before there is a code server would mend itself, and cost more."""
    for name in names:
        processes.start(name)
        processes.wait_until_ready(name)
