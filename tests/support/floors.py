"""The least that a date's tables can cost: ``floor.py`` as a process, measured."""

import contextlib
import datetime as dt
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from gardener_api.calls import Update
from gardener_api.config import GardenerConfig
from gardener_api.jobs import Ask, JobState, Priority
from gardener_api.store import JobStore
from gardener_dagster.local.stack import StackSettings
from gardener_dagster.planning import job_key

PROGRAM = str(Path(__file__).parent / "floor.py")
ONE_DAY = dt.timedelta(days=1)


def floor(settings: StackSettings, config: GardenerConfig, first: dt.date) -> dict[str, float]:
    """CPU-seconds of a fresh process for one date's raw tables, and for its joined ones.

    Measured as the work itself is, with all cores busy: as many of them at once as there are cores.
    One alone, which is printed, too, takes less, where two cores are two threads of one.
    """
    home = settings.home / "floor"
    home.mkdir()
    url = f"sqlite:///{home / 'gardener.db'}"
    cores = os.cpu_count() or 1
    dates = [first + n * ONE_DAY for n in range(cores)]
    with contextlib.closing(JobStore.open(url, lease=ONE_DAY, max_attempts=1)) as store:
        parse_all(store, config, dates)
    environment = settings.environment | {"GARDENER_DATABASE_URL": url, "DAGSTER_HOME": str(home)}
    found = {}
    for tables in ("raw", "joined"):
        alone, found[tables] = (
            statistics.median(floor_of(some, tables, environment) for _ in range(3))
            for some in (dates[:1], dates)
        )
        print(
            f"floor, {tables}: {alone:.2f} CPU-s alone, {found[tables]:.2f} with all cores busy",
            flush=True,
        )
    return found


def floor_of(dates: Sequence[dt.date], tables: str, environment: Mapping[str, str]) -> float:
    """CPU-seconds of a process for one date, as many at once."""
    before = os.times()
    program = [sys.executable, PROGRAM]
    running = [
        subprocess.Popen([*program, f"{date}", tables], env=environment, stderr=subprocess.PIPE)
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
