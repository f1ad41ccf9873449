"""The tables that a simulated history ends with. What they show is fetched in ``history_facts``."""

import datetime as dt
import statistics
from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from costs import Cost
from dagster import DagsterInstance
from history_facts import (
    Counts,
    Life,
    backfill_ticks,
    lives,
    logged,
    run_ends,
    sensor_ticks,
)
from sqlalchemy import Engine, text

from gardener_api.config import GardenerConfig
from gardener_dagster.planning.daily import newest_due

OURS = ("daemon", "code server", "runs", "sidecar", "webserver", "postgresql", "pool")


@dataclass
class Mark:
    """How far it was at a time, and what it had cost."""

    at: dt.datetime
    counts: Counts
    cpu: Mapping[str, float]


@dataclass(kw_only=True)
class History:
    """What there is to tell of."""

    config: GardenerConfig
    instance: DagsterInstance
    engine: Engine
    marks: list[Mark] = field(default_factory=list)
    asked: dict[dt.date, dt.datetime] = field(default_factory=dict)  # of the daily work
    logs: list[Path] = field(default_factory=list)  # of the daemon
    backfill: str = ""


def report(history: History, costs: Mapping[str, Cost]) -> None:
    """All tables."""
    thirds = by_work(history.marks)
    show_cost(history, thirds)
    show_memory(costs)
    show_connections(history)
    show_ticks(history)
    with history.engine.begin() as connection:
        found = list(lives(connection))
    show_daily(history, found)
    show_latency(history, found)
    show_runs(history)


def by_work(marks: Sequence[Mark]) -> list[tuple[Mark, Mark]]:
    """The first, second and last third of the work, by partitions in raw."""
    last = marks[-1].counts.raw
    cuts = [next(m for m in marks if m.counts.raw >= last * n / 3) for n in (0, 1, 2)]
    return list(zip(cuts, [*cuts[1:], marks[-1]], strict=True))


def show_cost(history: History, thirds: Sequence[tuple[Mark, Mark]]) -> None:
    """Partitions an hour and CPU-seconds a partition: in all, and for each third of the work."""
    show(["work", "runs", "raw", "joined", "minutes", "raw/hour", *OURS, "all"])
    ended = sorted(run_ends(history.instance))
    whole = (history.marks[0], history.marks[-1])
    for name, (begin, end) in zip(
        ["first third", "second", "last", "whole"], [*thirds, whole], strict=True
    ):
        hours = (end.at - begin.at).total_seconds() / 3600
        raw = end.counts.raw - begin.counts.raw
        joins = end.counts.joined - begin.counts.joined
        runs = bisect(ended, end.at) - bisect(ended, begin.at)
        each = [(end.cpu.get(part, 0) - begin.cpu.get(part, 0)) / raw for part in OURS]
        show(
            [
                name,
                f"{runs:,}",
                f"{raw:,}",
                f"{joins:,}",
                f"{hours * 60:.1f}",
                f"{raw / hours:,.0f}",
            ]
            + [f"{seconds:.3f}" for seconds in (*each, sum(each))]
        )
    print("CPU-seconds a raw partition, with its join\n")


def show_memory(costs: Mapping[str, Cost]) -> None:
    """The most that each process had, and the largest of those that it started."""
    show(["process", "peak MB", "child MB", "children"])
    for name, cost in costs.items():
        children = (f"{cost.child_peak:.0f}", str(cost.children_at_once))
        show([name, f"{cost.peak:.0f}", *(children if cost.children_at_once else ("-", "-"))])
    print("MB: of the process, of the largest it started; how many of those at once\n")


def show_connections(history: History) -> None:
    """How many connections PostgreSQL has taken."""
    if history.engine.dialect.name != "postgresql":
        return
    query = "SELECT sessions FROM pg_stat_database WHERE datname = current_database()"
    with history.engine.begin() as connection:
        sessions = connection.execute(text(query)).scalar_one()
    print(f"connections to PostgreSQL: {sessions:,}\n")


def show_ticks(history: History) -> None:
    """How long ticks take, in each third of the time."""
    begin, end = history.marks[0].at, history.marks[-1].at
    ticks = {
        name: found for name, found in sensor_ticks(history.instance).items() if len(found) > 2
    }
    ticks["backfill daemon"] = backfill_ticks(history.logs)
    show(["ticks, s: mean/max", "count", "start", "middle", "end"])
    for name, found in sorted(ticks.items()):
        parts: list[list[float]] = [[], [], []]
        for at, seconds in found:
            if begin <= at <= end:
                parts[min(2, int(3 * ((at - begin) / (end - begin))))].append(seconds)
        cells = [f"{statistics.mean(p):.2f}/{max(p):.1f}" if p else "-" for p in parts]
        show([name, str(len(found)), *cells])
    print()


def show_daily(history: History, found: Sequence[Life]) -> None:
    """From the schedule's tick to the parser."""
    for time_, daemon, said in logged(history.logs):
        if daemon == "SchedulerDaemon" and "Evaluating schedule `daily`" in said:
            history.asked.setdefault(newest_due(time_), time_)  # an hour later it looks again
    show(["daily jobs", "jobs", "first, s", "last, s"])
    for date, asked in sorted(history.asked.items()):
        waits = sorted(
            (life.handed_out - asked).total_seconds()
            for life in found
            if life.daily and life.date == date and life.handed_out
        )
        if waits:
            show([f"{date}", str(len(waits)), f"{waits[0]:.1f}", f"{waits[-1]:.1f}"])
    print("from the evaluation of the schedule to being handed out\n")


def show_latency(history: History, found: Sequence[Life]) -> None:
    """From a parser's postProcessing to the tables."""
    show(["postProcessing to", "jobs", "p50, s", "p95, s"])
    kinds = {
        f"{date}": [life for life in found if life.daily and life.date == date]
        for date in sorted(history.asked)
    }
    kinds["backfill"] = [life for life in found if not life.daily]
    for name, of in kinds.items():
        for table in ("raw", "joined"):
            ends = [(getattr(life, table), life.parsed) for life in of]
            waits = sorted((end - parsed).total_seconds() for end, parsed in ends if end)
            if waits:
                p50, p95 = (waits[min(len(waits) - 1, int(len(waits) * p))] for p in (0.5, 0.95))
                show([f"{table}, {name}", f"{len(waits):,}", f"{p50:.1f}", f"{p95:.1f}"])
    print()


def show_runs(history: History) -> None:
    """How many runs it took, and how they ended."""
    runs = [record.dagster_run for record in history.instance.get_run_records()]
    kinds: dict[tuple[str, str], int] = {}
    for run in runs:
        by = "backfill" if "dagster/backfill" in run.tags else ""
        by = by or run.tags.get("dagster/sensor_name") or run.tags.get("gardener/priority", "other")
        kind = (f"{by}, {'parse' if 'gardener/parse' in run.tags else 'tables'}", run.status.value)
        kinds[kind] = kinds.get(kind, 0) + 1
    show(["runs", "status", "count"])
    for (name, status), number in sorted(kinds.items()):
        show([name, status, f"{number:,}"])
    if history.backfill:
        backfill = history.instance.get_backfill(history.backfill)
        print(f"backfill: {backfill.status.value if backfill else 'gone'}\n")


def show(cells: Sequence[str]) -> None:
    """A row of a table."""
    print(f"{cells[0]:<24}" + "".join(f"{cell:>13}" for cell in cells[1:]), flush=True)
