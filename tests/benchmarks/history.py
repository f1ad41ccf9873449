"""A year of history beside the daily work, on this machine: run by hand, asserts nothing.

    PYTHONPATH=tests/support .venv/bin/python tests/benchmarks/history.py \
        [--days 365] [--sources 16] [--keep DIR] [--pages]

Dagster's daemon, code server and webserver, the sidecar and both stores are the real ones, as
processes with the project's ``dagster.yaml``; BigQuery, Cloud Storage and the parser answer at once
(``tests/support/instant.py``). Sensors look every 5 s.

The webserver is asked for a backfill of the whole chain, all sources, as its UI asks. When a third
of the dates is in raw, the schedule *daily* is evaluated for the day before yesterday by the
webserver and its run launched (the UI's test of a tick); at two thirds the daemon and the code
server are ended and started again, and the daemon finds that the schedule's tick for yesterday is
due. It ends when the backfill has ended and nothing runs.

CPU is what Linux counted for each process; a partition is one source on one date, parsed, loaded
and, where it is joined, joined. The floor is ``tests/support/floor.py``: the tables of one date, by
the same steps, in fresh processes that do nothing else. ``--pages`` opens Dagster's UI in Chromium
afterwards.
"""

import argparse
import contextlib
import datetime as dt
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from costs import Cost, Costs
from dagster import DagsterInstance
from dagster._core.scheduler.instigation import InstigatorStatus, ScheduleInstigatorData
from dagster_ui import DagsterUI
from history_facts import Counts, Life, backfill_ticks, count, lives, logged, sensor_ticks
from sqlalchemy import Engine

from gardener_api.calls import Update
from gardener_api.config import GardenerConfig, load_config
from gardener_api.database import open_engine
from gardener_api.jobs import Ask, JobState, Priority
from gardener_api.store import JobStore
from gardener_dagster.daily import due_at, newest_due
from gardener_dagster.graph import parsed_key, table_keys
from gardener_dagster.local.dagster_client import DagsterClient
from gardener_dagster.local.processes import Part, PartFailedError, Processes
from gardener_dagster.local.stack import StackSettings, build_parts, choose_ports
from gardener_dagster.planning import job_key

ROOT = Path(__file__).parent.parent.parent
FIRST = dt.date(2023, 1, 1)
FLOOR_DATE = FIRST - dt.timedelta(days=30)
LOOK_SECONDS = 1.0
TELL_SECONDS = 30.0
QUIET_SECONDS = 15.0
ONE_DAY = dt.timedelta(days=1)
OURS = ("daemon", "code server", "runs", "sidecar", "webserver")


# -- the stack


def write_config(home: Path, sources: int) -> Path:
    """Production's sources, as many of them; sensors that look every 5 s; no historical pass."""
    production = yaml.safe_load((ROOT / "tests/fixtures/production.yml").read_text())
    changed = {
        "start_date": (FIRST - dt.timedelta(days=60)).isoformat(),
        "monitor": {"polling_interval": "5s"},
        "history": {"enabled": False},
        "sources": production["sources"][:sources],
    }
    path = home / "gardener.yml"
    path.write_text(yaml.safe_dump(changed, default_flow_style=None))
    return path


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
    home = settings.home / "dagster"
    home.mkdir(parents=True)
    shutil.copyfile(settings.dagster_yaml, home / "dagster.yaml")
    server = {"host": "127.0.0.1", "port": settings.ports["code"], "location_name": "gardener"}
    (home / "workspace.yaml").write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
    return Processes([stand_ins, *ours])


# -- what happens


@dataclass
class Mark:
    """How far it was at a time, and what it had cost."""

    at: dt.datetime
    counts: Counts
    cpu: Mapping[str, float]


@dataclass
class Story:
    """The scenario, and what is noted of it."""

    settings: StackSettings
    config: GardenerConfig
    dates: Sequence[dt.date]
    processes: Processes
    costs: Costs
    instance: DagsterInstance
    engine: Engine
    marks: list[Mark] = field(default_factory=list)
    asked: dict[dt.date, dt.datetime] = field(default_factory=dict)  # of the daily work
    backfill: str = ""
    logs: list[Path] = field(default_factory=list)
    _told: float = 0.0

    def __post_init__(self) -> None:
        self.client = DagsterClient(url=self.settings.dagster_url)
        self.logs.append(self.processes.part("daemon").log)

    def tell(self) -> None:
        """Mark where it is; print it now and then."""
        with self.engine.begin() as connection:
            counts = count(connection)
        costs = self.costs.all()
        cpu = {name: cost.own for name, cost in costs.items()}
        cpu["runs"] = costs["code server"].children if "code server" in costs else 0.0
        self.marks.append(Mark(at=dt.datetime.now(dt.UTC), counts=counts, cpu=cpu))
        if time.monotonic() - self._told < TELL_SECONDS:
            return
        self._told = time.monotonic()
        begun = self.marks[0].at
        spent = ", ".join(f"{name} {seconds:.0f}" for name, seconds in cpu.items())
        print(
            f"{(self.marks[-1].at - begun).total_seconds():6.0f} s: {counts.parsed:,} parsed,"
            f" {counts.raw:,} raw, {counts.joined:,} joined; CPU-s: {spent}",
            flush=True,
        )

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait, and watch that all parts are alive."""
        while not condition():
            self.processes.check()
            time.sleep(LOOK_SECONDS)
            self.tell()

    def tell_all(self) -> None:
        """The scenario."""
        wanted = len(self.dates) * len(self.config.sources)
        self.until(lambda: any(s.name == "daily" for s in self.instance.all_instigator_state()))
        self._turn_daily(on=False)
        chain = [
            list(key.path)
            for source in self.config.sources
            for key in (parsed_key(source), *table_keys(source))
        ]
        self.marks.clear()
        self._told = 0.0
        self.tell()
        self.backfill = self.client.backfill(chain, self.dates)
        self.until(lambda: self.marks[-1].counts.raw >= wanted / 3)
        self.first_day()
        self.until(lambda: self.marks[-1].counts.raw >= wanted * 2 / 3)
        self.restart()
        self.until(lambda: self.client.backfill_status(self.backfill) != "REQUESTED")
        quiet = time.monotonic()

        def is_quiet() -> bool:
            nonlocal quiet
            if self.client.runs_in_progress():
                quiet = time.monotonic()
            return time.monotonic() - quiet > QUIET_SECONDS

        self.until(is_quiet)

    def first_day(self) -> None:
        """The webserver evaluates the schedule for the day before yesterday, and launches it."""
        date = newest_due(dt.datetime.now(dt.UTC)) - ONE_DAY
        self.asked[date] = dt.datetime.now(dt.UTC)
        DagsterUI(self.settings.dagster_url).test_tick("daily", due_at(date))

    def restart(self) -> None:
        """Daemon and code server end and begin again; by then the schedule's tick is due."""
        parts = [self.processes.part(name) for name in ("daemon", "code server")]
        for part in parts:
            assert part.process is not None
            part.process.send_signal(signal.SIGTERM)
        for part in parts:
            assert part.process is not None
            part.process.wait(120)
            part.process = None
        print("        daemon and code server have ended", flush=True)
        self._turn_daily(on=True)
        log = self.processes.part("daemon").log
        for part in reversed(parts):
            part.log = part.log.with_stem(f"{part.log.stem}-2")
            part.start()
            assert part.process is not None
            self.costs.follow(part.name, part.process.pid)
        self.logs.append(parts[0].log)
        del log

    def _turn_daily(self, *, on: bool) -> None:
        """Off: no tick comes by itself. On: the last one before now is due."""
        [state] = [s for s in self.instance.all_instigator_state() if s.name == "daily"]
        data = state.instigator_data
        assert isinstance(data, ScheduleInstigatorData)
        if on:
            then = due_at(newest_due(dt.datetime.now(dt.UTC))).timestamp() - 1
            data = data._replace(start_timestamp=then, last_iteration_timestamp=then)
        status = InstigatorStatus.RUNNING if on else InstigatorStatus.STOPPED
        self.instance.update_instigator_state(state.with_data(data).with_status(status))


# -- the floor


def floor(settings: StackSettings, config: GardenerConfig) -> dict[str, float]:
    """CPU-seconds of a fresh process for one date's raw tables, and its joined ones; medians."""
    home = settings.home / "floor"
    home.mkdir()
    url = f"sqlite:///{home / 'gardener.db'}"
    with contextlib.closing(JobStore.open(url, lease=dt.timedelta(hours=1), max_attempts=1)) as s:
        asks = [
            Ask(
                key=job_key(source, FLOOR_DATE), requester="floor", run_id="floor",
                backfill_id=None, covers_tables=False, priority=Priority.BACKFILL, daily=False,
                filter=source.filter, tmp=source.target_datasets.tmp,
                raw=source.target_datasets.raw, join=source.target_datasets.join or "", rank=rank,
                archives=1,
            )
            for rank, source in enumerate(config.sources)
        ]  # fmt: skip
        now = dt.datetime.now(dt.UTC)
        s.enqueue(asks, now=now)
        for job in s.lease(len(asks), parser="floor", now=now):
            calls = [Update(job.id, state, "") for state in (JobState.PARSING, JobState.POST_PROCESSING)]
            s.apply(calls, now=now)
    environment = settings.environment | {"GARDENER_DATABASE_URL": url, "DAGSTER_HOME": str(home)}
    found = {}
    for tables in ("raw", "joined"):
        seconds = []
        for _ in range(3):
            before = os.times()
            command = [sys.executable, str(ROOT / "tests/support/floor.py"), FLOOR_DATE.isoformat(), tables]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
            if done.returncode:
                sys.exit(f"the floor failed:\n{done.stderr[-3000:]}")
            after = os.times()
            seconds.append(
                after.children_user + after.children_system
                - before.children_user - before.children_system
            )  # fmt: skip
        found[tables] = statistics.median(seconds)
        print(f"floor, {tables}: {found[tables]:.2f} CPU-s; of the last: {done.stdout.strip()}", flush=True)
    return found


# -- what is shown


def main() -> None:
    """Read the options, run the scenario, report."""
    parser = argparse.ArgumentParser(description="A year of history beside the daily work.")
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--sources", type=int, default=16)
    parser.add_argument("--keep", type=Path, help="a folder that is kept, with all data and logs")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        home = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gardener-")))
        home.mkdir(exist_ok=True)
        home = home.resolve()
        config_path = write_config(home, options.sources)
        config = load_config(config_path)
        ports = choose_ports(dict.fromkeys(["dagster", "jobs", "status", "metrics", "bigquery", "code"], 0))
        settings = StackSettings(
            home=home,
            config=config_path,
            dagster_yaml=ROOT / "dagster.yaml",
            ports=ports | {"storage": ports["bigquery"]},
            workers=0,
        )
        processes = stack.enter_context(build_stack(settings))
        first = ("stand-ins", "sidecar", "code server")
        processes.start(*first)
        processes.wait_until_ready(*first)
        floors = floor(settings, config)
        processes.start()
        processes.wait_until_ready()
        costs = stack.enter_context(Costs())
        for part in processes.parts:
            assert part.process is not None
            costs.follow(part.name, part.process.pid)
        story = Story(
            settings=settings,
            config=config,
            dates=[FIRST + n * ONE_DAY for n in range(options.days)],
            processes=processes,
            costs=costs,
            instance=stack.enter_context(DagsterInstance.from_config(str(home / "dagster"))),
            engine=open_engine(settings.database_url),
        )
        try:
            story.tell_all()
        finally:
            print(costs.all())


if __name__ == "__main__":
    main()
