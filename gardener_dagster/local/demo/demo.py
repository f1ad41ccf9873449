"""``gardener demo`` and ``gardener dev``: the stack up, archives in, and what came out of it.

It does what a user would: upload archives, ask for a backfill in Dagster, and look at the tables.
"""

import datetime as dt
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live

from gardener_api.config import GardenerConfig, load_config
from gardener_api.jobs.job import ENDED, Job
from gardener_api.links import Links
from gardener_api.store.store import JobStore
from gardener_dagster.dagster_client import DagsterClient
from gardener_dagster.local.clients import bigquery_client
from gardener_dagster.local.demo import report
from gardener_dagster.local.demo.results import Counts, read_landed
from gardener_dagster.local.demo.upload import upload_archives
from gardener_dagster.local.samples.archives import make_samples
from gardener_dagster.local.stack.home import Home, claim_home
from gardener_dagster.local.stack.parts import StackSettings, running_stack
from gardener_dagster.local.stack.ports import choose_ports, replaced_ports
from gardener_dagster.local.stack.processes import Part, Processes, terminating
from gardener_dagster.planning.daily import newest_due
from gardener_dagster.planning.due_tables import job_key

POLL_SECONDS = 0.5


def run_demo(
    *,
    home: Path,
    config_path: Path,
    dagster_yaml: Path,
    archive: Path | None,
    dates: tuple[dt.date, dt.date] | None,
    exit_after: bool,
    ports: Mapping[str, int],
) -> int:
    """Run the whole pipeline; show its progress and its results.

    Args:
        home: Folder of all data.
        config_path: The gardener's configuration file.
        dagster_yaml: Dagster's instance configuration file.
        archive: Folder of archives; ``None``: samples.
        dates: First and last date of the archives; ``None``: ``sample_dates``.
        exit_after: Exit when the pipeline is done, not at Ctrl-C.
        ports: Requested ports, by part; other parts get their default port or a free one.

    Returns:
        The exit code: 0 if all jobs are complete and all counts are as expected.

    Raises:
        PartFailedError: A part of the stack ended.
        PortError: A requested port is not available.
        HomeError: The folder cannot be created or written.
    """
    console = _console()
    config = load_config(config_path)
    days = _days(*(dates or sample_dates(dt.datetime.now(dt.UTC))))
    with terminating(), claim_home(home) as own, tempfile.TemporaryDirectory() as folder:
        settings = _settings(own, config_path, dagster_yaml, ports, workers=1)
        expected = {} if archive else make_expected(Path(folder), days)
        with _stack(console, settings, ports) as processes:
            upload_archives(archive or Path(folder), settings.storage_url, config, days)
            demo = _Demo(console=console, config=config, settings=settings, days=days)
            code = demo.run(processes, expected)
            if not exit_after:
                console.print("Everything stays up; Ctrl-C ends it.")
                _stay(processes)
            return code


def run_dev(
    *,
    home: Path,
    config_path: Path,
    dagster_yaml: Path,
    workers: int,
    ports: Mapping[str, int],
    faults: bool = False,
) -> None:
    """Run the stack until Ctrl-C.

    Raises:
        PartFailedError: A part of the stack ended.
        PortError: A requested port is not available.
        HomeError: The folder cannot be created or written.
    """
    console = _console()
    with terminating(), claim_home(home) as own:
        settings = _settings(own, config_path, dagster_yaml, ports, workers=workers, faults=faults)
        with _stack(console, settings, ports) as processes:
            console.print("Ctrl-C ends it.")
            _stay(processes)


def sample_dates(now: dt.datetime) -> tuple[dt.date, dt.date]:
    """Return the first and last date of the samples, which are of the three newest due dates."""
    last = newest_due(now)
    return last - dt.timedelta(days=2), last


def make_expected(folder: Path, days: tuple[dt.date, ...]) -> dict[tuple[str, dt.date], Counts]:
    """Make the samples and return the counts that they must give."""
    return {
        (f"ndt/{datatype}", date): Counts(
            archives=e.archives,
            rows_loaded=e.rows_loaded,
            duplicates_removed=e.duplicates_removed,
            raw_rows=e.raw_rows,
            joined_rows=e.joined_rows,
            annotated_rows=e.annotated_rows,
        )
        for (datatype, date), e in make_samples(folder, days).items()
    }


@dataclass(frozen=True, kw_only=True)
class _Demo:
    console: Console
    config: GardenerConfig
    settings: StackSettings
    days: tuple[dt.date, ...]

    def run(self, processes: Processes, expected: dict[tuple[str, dt.date], Counts]) -> int:
        """Request the dates, wait until their jobs end, and compare the counts."""
        started = time.monotonic()
        tracker = self.config.tracker
        store = JobStore.open(
            self.settings.database_url, lease=tracker.timeout, max_attempts=tracker.max_attempts
        )
        try:
            dagster = DagsterClient(url=self.settings.dagster_url)
            parsed = [["parsed", s.experiment, s.datatype] for s in self.config.sources]
            backfill = dagster.backfill(parsed, self.days)
            self.console.print(
                f"Asked for [bold]parsed[/] of {len(self.days)} dates as a person would:"
                f" {dagster.backfill_url(backfill)}\nDagster's backfill daemon looks every 30 s;"
                " tables and joins follow by sensor.\n"
            )
            self._follow(store, dagster, backfill, processes)
            with bigquery_client(self.settings.bigquery_url) as client:
                landed = read_landed(client, self.config, self.days, store)
        finally:
            store.close()
        self.console.print(report.results_table(landed))
        faults = report.faults(landed, expected)
        for line in faults:
            self.console.print(f"[red]{line}[/]")
        if not faults:
            self.console.print(
                "[green]Every number is what it must be.[/]"
                if expected
                else "[green]Every date is complete.[/]",
                f"[dim]{time.monotonic() - started:.0f} s[/]",
            )
        return 1 if faults else 0

    def _follow(
        self, store: JobStore, dagster: DagsterClient, backfill: str, processes: Processes
    ) -> None:
        sources = [source.name for source in self.config.sources]
        with Live(console=self.console, refresh_per_second=4, transient=True) as live:
            while True:
                processes.check()
                jobs = self._jobs(store)
                now = dt.datetime.now(dt.UTC)
                live.update(report.progress_table(sources, self.days, jobs, now=now))
                if self._ended(store, jobs, dagster, backfill):
                    break
                time.sleep(POLL_SECONDS)
        self.console.print(report.progress_table(sources, self.days, jobs, now=now))

    def _jobs(self, store: JobStore) -> dict[tuple[str, dt.date], Job | None]:
        return {
            (source.name, date): store.latest(job_key(source, date))
            for source in self.config.sources
            for date in self.days
        }

    def _ended(
        self,
        store: JobStore,
        jobs: dict[tuple[str, dt.date], Job | None],
        dagster: DagsterClient,
        backfill: str,
    ) -> bool:
        if dagster.backfill_status(backfill) == "REQUESTED":
            return False
        if not all(job and job.state in ENDED for job in jobs.values()):
            # The backfill has ended; a date that has no job by now will not get one.
            return any(job is None for job in jobs.values())
        return not self._joins_due(store) and not dagster.runs_in_progress()

    def _joins_due(self, store: JobStore) -> bool:
        newest = newest_due(dt.datetime.now(dt.UTC))
        return any(
            store.tables.joins_due(
                source.raw_table, annotations.raw_table, source.joined_table, newest=newest
            )
            for source in self.config.sources
            if source.joined_table and (annotations := self.config.annotations_of(source))
        )


def _console() -> Console:
    """Return a console as wide as the terminal; without one, wide enough for the tables."""
    return Console() if sys.stdout.isatty() else Console(width=125)


def _days(first: dt.date, last: dt.date) -> tuple[dt.date, ...]:
    return tuple(first + dt.timedelta(days=n) for n in range((last - first).days + 1))


def _settings(
    home: Home,
    config_path: Path,
    dagster_yaml: Path,
    ports: Mapping[str, int],
    *,
    workers: int,
    faults: bool = False,
) -> StackSettings:
    return StackSettings(
        home=home.folder,
        lock=home.lock,
        config=config_path.resolve(),
        dagster_yaml=dagster_yaml.resolve(),
        ports=choose_ports(asked_for=ports),
        workers=workers,
        faults=faults,
    )


@contextmanager
def _stack(
    console: Console, settings: StackSettings, asked_for: Mapping[str, int]
) -> Iterator[Processes]:
    console.print(
        f"Dagster      [link]{Links(dagster_url=settings.dagster_url).asset_graph()}[/]\n"
        f"Status page  [link]{settings.status_url}[/]\n"
        f"Jobs API     {settings.jobs_url}\n"
        f"Data, logs   {settings.home}\n"
    )
    for line in replaced_ports(settings.ports, asked_for):
        console.print(f"[yellow]{line}[/]")
    started = time.monotonic()

    def seen(part: Part) -> None:
        console.print(f"[green]✓[/] {part.name:12} [dim]{time.monotonic() - started:.1f} s[/]")

    with running_stack(settings, seen) as processes:
        console.print()
        yield processes
        console.print("Ending …")


def _stay(processes: Processes) -> None:
    try:
        while True:
            processes.check()
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        return
