"""The least that tables can cost: ``floor.py`` as a process, measured."""

import contextlib
import datetime as dt
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gardener_api.calls import Update
from gardener_api.config import GardenerConfig
from gardener_api.jobs import Ask, JobState, Priority
from gardener_api.store import JobStore
from gardener_dagster.local.stack import StackSettings
from gardener_dagster.planning import job_key

PROGRAM = str(Path(__file__).parent / "floor.py")
ONE_DAY = dt.timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Floor:
    """CPU-seconds of a run's work in a process that does nothing else.

    Attributes:
        process: A fresh one: its imports, and the definitions.
        raw: The steps of one source's tmp and raw.
        join: The step of one joined table.
    """

    process: float
    raw: float
    join: float

    def of(self, *, runs: int, raw: int, joined: int) -> float:
        """The least that so many runs cost, which made so many partitions together."""
        return runs * self.process + raw * self.raw + joined * self.join


def measure_floor(settings: StackSettings, config: GardenerConfig, first: dt.date) -> Floor:
    """Has fresh processes make the tables of one source, and of all, on dates of their own.

    As many at once as there are cores, as in the work itself: one alone takes less, where two cores
    are two threads of one.
    """
    home = settings.home / "floor"
    home.mkdir()
    url = f"sqlite:///{home / 'gardener.db'}"
    cores = os.cpu_count() or 1
    dates = [first + n * ONE_DAY for n in range(cores)]
    with contextlib.closing(JobStore.open(url, lease=ONE_DAY, max_attempts=1)) as store:
        parse_all(store, config, dates)
    environment = settings.environment | {"GARDENER_DATABASE_URL": url, "DAGSTER_HOME": str(home)}

    def seconds(tables: str, sources: int) -> float:
        return statistics.median(_floor_of(dates, tables, sources, environment) for _ in range(3))

    every, joining = len(config.sources), sum(s.joined_table is not None for s in config.sources)
    one_raw, one_join = seconds("raw", 1), seconds("joined", 1)
    raw = (seconds("raw", every) - one_raw) / (every - 1)
    join = (seconds("joined", joining) - one_join) / (joining - 1)
    found = Floor(process=(one_raw - raw + one_join - join) / 2, raw=raw, join=join)
    print(
        f"floor: a fresh process {found.process:.3f} CPU-s, in it {found.raw:.3f} for a source's"
        f" tmp and raw, {found.join:.3f} for a join\n",
        flush=True,
    )
    return found


def _floor_of(
    dates: Sequence[dt.date], tables: str, sources: int, environment: Mapping[str, str]
) -> float:
    before = os.times()
    program = [sys.executable, PROGRAM]
    running = [
        subprocess.Popen(
            [*program, f"{date}", tables, f"{sources}"], env=environment, stderr=subprocess.PIPE
        )
        for date in dates
    ]
    for process in running:
        _, said = process.communicate(timeout=300)
        if process.returncode:
            sys.exit(f"the floor failed:\n{said.decode()[-3000:]}")
    after = os.times()
    user = after.children_user - before.children_user
    return (user + after.children_system - before.children_system) / len(dates)


def parse_all(store: JobStore, config: GardenerConfig, dates: Sequence[dt.date]) -> None:
    """Jobs of all sources on these dates are asked for, handed out and parsed."""
    now = dt.datetime.now(dt.UTC)
    asks = [
        Ask(
            key=job_key(source, date), requester="floor", run_id="floor", backfill_id=None,
            covers_tables=False, priority=Priority.BACKFILL, daily=False, filter=source.filter,
            tmp=source.target_datasets.tmp, raw=source.target_datasets.raw,
            join=source.target_datasets.join or "", rank=rank, archives=1,
        )
        for date in dates
        for rank, source in enumerate(config.sources)
    ]  # fmt: skip
    store.enqueue(asks, now=now)
    for job in store.lease(len(asks), parser="floor", now=now):
        said = (JobState.PARSING, JobState.POST_PROCESSING)
        store.apply([Update(job.id, state, "") for state in said], now=now)
