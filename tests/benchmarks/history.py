"""A year of history beside the daily work, on this machine: run by hand, asserts nothing.

    PYTHONPATH=tests/support .venv/bin/python tests/benchmarks/history.py \
        [--days 365] [--sources 16] [--postgresql [--pool]] [--keep DIR]
    PYTHONPATH=tests/support .venv/bin/python tests/benchmarks/history.py --pages DIR

Dagster's daemon, code server and webserver, the sidecar and both stores are the real ones, as
processes with the project's ``dagster.yaml``; BigQuery, Cloud Storage and the parser answer at once
(``tests/support/instant.py``). Sensors look every 5 s. With ``--postgresql`` Dagster and the job
store share a database of a PostgreSQL server of its own; else they have SQLite files. With
``--pool`` they reach it through PgBouncer.

First a day alone: the schedule *daily* is evaluated for three days ago by the webserver and its
run launched (the UI's test of a tick), on an idle machine. Then the webserver is asked for a
backfill of the whole chain, all sources, as its UI asks. When a third of the dates is in raw,
*daily* is evaluated for the day before yesterday; at two thirds the daemon and the code server are
ended and started again, and the daemon finds that the schedule's tick for yesterday is due. It ends
when the backfill has ended and nothing runs.

CPU is what Linux counted for each process, PostgreSQL's too. A partition is one source on one date:
parsed, loaded and, where it is joined, joined. ``--pages`` starts what ``--keep`` has kept (on
SQLite) and opens Dagster's UI in Chromium (``tests/support/dagster_pages.py``), beside that of a
gardener without any history.
"""

import argparse
import contextlib
import datetime as dt
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import daily_schedule
from costs import Cost, Costs
from dagster_instance import instance_at
from dagster_pages import Load, Loads, load_times
from dagster_ui import DagsterUI
from history_facts import count
from history_report import History, Mark, report, show
from history_stack import FIRST, build_stack, describe, settings_of, start_in_order, write_config
from pgbouncer import pgbouncer
from postgres import postgresql_server

from gardener_api.config import load_config
from gardener_api.store.engine import open_engine
from gardener_dagster.assets.keys import parsed_key, table_keys
from gardener_dagster.dagster_client import DagsterClient
from gardener_dagster.local.stack.parts import StackSettings
from gardener_dagster.local.stack.processes import Processes, terminating
from gardener_dagster.planning.daily import due_at, newest_due

POLL_SECONDS = 1.0
TELL_SECONDS = 30.0
QUIET_SECONDS = 15.0
STOP_SECONDS = 30.0
ONE_DAY = dt.timedelta(days=1)


# -- what happens


class OutOfTime(Exception):
    """The time that was given is over."""


@dataclass
class Story:
    """The scenario, and what is noted of it."""

    settings: StackSettings
    dates: Sequence[dt.date]
    processes: Processes
    costs: Costs
    history: History
    give_up: float  # by the monotonic clock
    _told: float = 0.0

    def __post_init__(self) -> None:
        self.client = DagsterClient(url=self.settings.dagster_url)
        self.history.logs.append(self.processes.part("daemon").log)

    def tell(self) -> None:
        """Mark where it is; print it now and then."""
        with self.history.engine.begin() as connection:
            counts = count(connection)
        costs = self.costs.all()
        cpu = {name: cost.own + cost.children for name, cost in costs.items()}
        server = costs.get("code server", Cost())
        # Its process is Dagster's proxy: the server proper is one of the processes that it started.
        cpu |= {"code server": server.own, "runs": server.children}
        self.history.marks.append(Mark(at=dt.datetime.now(dt.UTC), counts=counts, cpu=cpu))
        if time.monotonic() - self._told < TELL_SECONDS:
            return
        self._told = time.monotonic()
        begun = self.history.marks[0].at
        spent = ", ".join(f"{name} {of:.0f}" for name, of in cpu.items())
        seconds = (self.history.marks[-1].at - begun).total_seconds()
        print(
            f"{seconds:6.0f} s: {counts.parsed:,} parsed,"
            f" {counts.raw:,} raw, {counts.joined:,} joined; CPU-s: {spent}",
            flush=True,
        )

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait, and watch that all parts are alive.

        Raises:
            OutOfTime: It is enough.
        """
        while not condition():
            self.processes.check()
            if time.monotonic() > self.give_up:
                raise OutOfTime
            time.sleep(POLL_SECONDS)
            self.tell()

    def tell_all(self) -> None:
        """The scenario."""
        wanted = len(self.dates) * len(self.history.config.sources)
        self.until(lambda: daily_schedule.is_known(self.history.instance))
        daily_schedule.turn_off(self.history.instance)
        chain = [
            list(key.path)
            for source in self.history.config.sources
            for key in (parsed_key(source), *table_keys(source))
        ]
        self.evaluate_daily(3)  # alone
        self.until_quiet()
        self.history.marks.clear()
        self._told = 0.0
        self.tell()
        self.history.backfill = self.client.backfill(chain, self.dates)
        self.until(lambda: self.history.marks[-1].counts.raw >= wanted / 3)
        self.evaluate_daily(2)
        self.until(lambda: self.history.marks[-1].counts.raw >= wanted * 2 / 3)
        self.restart()
        self.until(lambda: self.client.backfill_status(self.history.backfill) != "REQUESTED")
        self.until_quiet()

    def until_quiet(self) -> None:
        """Wait until no run is under way, and for a while none comes."""
        quiet = time.monotonic()

        def is_quiet() -> bool:
            nonlocal quiet
            if self.client.runs_in_progress():
                quiet = time.monotonic()
            return time.monotonic() - quiet > QUIET_SECONDS

        self.until(is_quiet)

    def evaluate_daily(self, ago: int) -> None:
        """The webserver evaluates the schedule for a date so many days ago, and launches it."""
        date = newest_due(dt.datetime.now(dt.UTC)) - (ago - 1) * ONE_DAY
        self.history.asked[date] = dt.datetime.now(dt.UTC)
        DagsterUI(url=self.settings.dagster_url).test_tick("daily", due_at(date))

    def restart(self) -> None:
        """Daemon and code server end and begin again; by then the schedule's tick is due."""
        parts = [self.processes.part(name) for name in ("daemon", "code server")]
        for part in parts:
            assert part.process is not None
            part.process.send_signal(signal.SIGTERM)
        for part in parts:
            assert part.process is not None
            try:
                part.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:  # as an init system does; runs may take long to end
                print(f"        {part.name} is killed", flush=True)
                part.process.kill()
                part.process.wait()
            part.process = None
        print("        daemon and code server have ended", flush=True)
        # As if they had been down before its tick at 10:30.
        due = due_at(newest_due(dt.datetime.now(dt.UTC)))
        daily_schedule.turn_on(self.history.instance, last_tick=due - dt.timedelta(seconds=1))
        for part in reversed(parts):
            part.log = part.log.with_stem(f"{part.log.stem}-2")
            part.start()
            assert part.process is not None
            self.costs.follow(part.name, part.process.pid)
        self.history.logs.append(parts[0].log)


# -- what is shown


def show_pages(home: Path) -> None:
    """Load times of Dagster's pages on what an earlier run kept, and where nothing has happened."""
    with tempfile.TemporaryDirectory(prefix="gardener-benchmark-") as empty:
        shutil.copyfile(home / "gardener.yml", Path(empty, "gardener.yml"))
        baseline = dict(loads_of(Path(empty)))
    parts = list(Load._fields)
    show(["", "first", "", "", "new, p50", "", "", "again, p50", "", "", "max", "empty, p50"])
    show(["page, s", *parts, *parts, *parts, "whole", "new", "again"])
    for name, (new, again) in loads_of(home):
        cells = [*new[0]]
        for loads in (new, again):
            cells += map(statistics.median, zip(*loads, strict=True))
        cells.append(max(load.whole for load in (*new, *again)))
        if name in baseline:
            cells += [statistics.median(load.whole for load in loads) for loads in baseline[name]]
        show([name, *(f"{cell:.2f}" for cell in cells)])
    print(
        "drawn: what the page is opened for is there; answered: the webserver's last answer came;"
        "\nwhole: the statuses of all assets, too, which may be a second after they came;"
        "\nby tens: opened without the link of the status page;"
        "\nnew: in a browser with an empty cache; again: in one that had the page open before;"
        "\nempty: this configuration without any history, until it is whole"
    )


def loads_of(home: Path) -> Iterator[tuple[str, Loads]]:
    """Load times of the pages of what is in a folder, which may be nothing but a configuration."""
    settings = settings_of(home)
    config = load_config(settings.config)
    source = next(s for s in config.sources if s.joined_table)
    with build_stack(settings) as processes, instance_at(home / "dagster") as instance:
        # No daemon: a backfill that was not finished would go on.
        start_in_order(processes, "code server", "webserver")
        backfills = instance.get_backfills()  # the newest first
        yield from load_times(
            settings.dagster_url,
            raw=f"{source.target_datasets.raw}/{source.datatype}",
            group=source.experiment,
            date=FIRST.isoformat(),
            backfill=backfills[-1].backfill_id if backfills else "",
            folder=home / "pages",
        )


@contextlib.contextmanager
def started(settings: StackSettings) -> Iterator[tuple[Processes, Costs]]:
    """The stack, watched."""
    with build_stack(settings) as processes, Costs() as costs:
        start_in_order(processes, "stand-ins", "sidecar", "code server", "webserver", "daemon")
        for part in processes.parts:
            assert part.process is not None
            costs.follow(part.name, part.process.pid)
        yield processes, costs


def main() -> None:
    """Read the options, run the scenario, report."""
    parser = argparse.ArgumentParser(description="A year of history beside the daily work.")
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--sources", type=int, default=16)
    parser.add_argument("--postgresql", action="store_true", help="for Dagster and the job store")
    parser.add_argument("--pool", action="store_true", help="of connections, before PostgreSQL")
    parser.add_argument("--keep", type=Path, help="a new folder that is kept, with data and logs")
    parser.add_argument("--minutes", type=float, default=1e9, help="report after so many")
    parser.add_argument("--pages", type=Path, help="such a folder: open Dagster's pages on it")
    options = parser.parse_args()
    print(describe(), flush=True)
    with terminating(), contextlib.ExitStack() as stack:
        if options.pages:
            show_pages(options.pages.resolve())
            return
        database = "PostgreSQL" if options.postgresql else "SQLite"
        database += ", PgBouncer" if options.pool else ""
        print(f"{options.days} days, {options.sources} sources, {database}\n", flush=True)
        home = options.keep or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="gardener-benchmark-"))
        )
        home.mkdir(exist_ok=True)
        write_config(home.resolve(), options.sources)
        server = stack.enter_context(postgresql_server()) if options.postgresql else None
        url, pool = server.url if server else "", 0
        if server and options.pool:
            url, pool = stack.enter_context(pgbouncer(server))
        settings = settings_of(home.resolve(), url)
        config = load_config(settings.config)
        processes, costs = stack.enter_context(started(settings))
        if server is not None:
            costs.follow("postgresql", server.pid)
        if pool:
            costs.follow("pool", pool)
        story = Story(
            settings=settings,
            dates=[FIRST + n * ONE_DAY for n in range(options.days)],
            processes=processes,
            costs=costs,
            history=History(
                config=config,
                instance=stack.enter_context(instance_at(settings.home / "dagster")),
                engine=open_engine(settings.database_url),
            ),
            give_up=time.monotonic() + options.minutes * 60,
        )
        try:
            story.tell_all()
        except OutOfTime:
            print(f"\nnot finished after {options.minutes:g} minutes", flush=True)
        except KeyboardInterrupt:
            print("\nnot finished: interrupted", flush=True)
        finally:  # whatever there is
            print()
            report(story.history, costs.all())


if __name__ == "__main__":
    main()
