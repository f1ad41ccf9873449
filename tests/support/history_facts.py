"""What came of a simulated history: when things happened, read from the store and from Dagster."""

import datetime as dt
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dagster import DagsterInstance
from sqlalchemy import Connection, func, select

from gardener_api.store import schema
from gardener_dagster.assets.keys import TABLES_TAG, URGENT_TABLES_TAG

_COLOUR = re.compile(r"\x1b\[\d*m")
_LOGGED = re.compile(r"^(\S+ \S+ [+-]\d{4}) - dagster\.daemon\.(\w+) - \w+ - (.*)$")


@dataclass(frozen=True, kw_only=True)
class Life:
    """When a job came where; None: not yet."""

    date: dt.date
    source: str
    daily: bool
    handed_out: dt.datetime | None
    parsed: dt.datetime
    raw: dt.datetime | None
    joined: dt.datetime | None


def lives(connection: Connection) -> Iterator[Life]:
    """The jobs that were parsed; of several joins of a date the first after its parse counts."""
    j, o = schema.jobs.c, schema.operations.c
    copied, joined = (
        select(func.min(o.at))
        .where(o.key == j.key, o.operation == name, o.at >= j.parsed)
        .scalar_subquery()
        for name in ("copy", "join")
    )
    query = select(
        *(j.date, j.experiment, j.datatype, j.daily, j.leased, j.parsed, copied, joined)
    ).where(j.parsed.is_not(None))
    for row in connection.execute(query):
        date, experiment, datatype, daily, leased, parsed, raw, joined = row
        yield Life(
            date=date,
            source=f"{experiment}/{datatype}",
            daily=daily,
            handed_out=leased,
            parsed=parsed,
            raw=raw,
            joined=joined,
        )


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How far it is: partitions, of one source on one date each."""

    parsed: int
    raw: int
    joined: int


def count(connection: Connection) -> Counts:
    """Jobs parsed, and partitions in the tables; the raw ones are in ``raw_<experiment>``."""
    j, p = schema.jobs.c, schema.partitions.c
    parsed = select(func.count()).where(j.parsed.is_not(None))
    in_all, *in_stage = connection.execute(
        select(
            func.count(),
            *(
                func.count().filter(p.table.startswith(f"{stage}\\_", escape="\\"))
                for stage in ("tmp", "raw")
            ),
        ).where(p.version > 0)
    ).one()
    tmp, raw = in_stage
    return Counts(
        parsed=connection.execute(parsed).scalar_one(), raw=raw, joined=in_all - tmp - raw
    )


def run_ends(instance: DagsterInstance) -> Iterator[dt.datetime]:
    """When the runs that make tables ended, of those that did."""
    for record in instance.get_run_records():
        if (
            record.end_time is not None
            and {TABLES_TAG, URGENT_TABLES_TAG} & record.dagster_run.tags.keys()
        ):
            yield _utc(record.end_time)


def sensor_ticks(instance: DagsterInstance) -> dict[str, list[tuple[dt.datetime, float]]]:
    """Of each sensor and schedule, when its ticks began and the seconds they took."""
    found = {}
    for state in instance.all_instigator_state():
        ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id)
        found[state.name] = [
            (_utc(tick.timestamp), tick.end_timestamp - tick.timestamp)
            for tick in ticks
            if tick.end_timestamp is not None
        ]
    return found


def backfill_ticks(logs: Iterable[Path]) -> list[tuple[dt.datetime, float]]:
    """When the backfill daemon began to look at a backfill and the seconds it took, to a second."""
    found: list[tuple[dt.datetime, float]] = []
    begun: dt.datetime | None = None
    for time, daemon, said in logged(logs):
        if daemon == "BackfillDaemon" and said.startswith("Evaluating asset backfill"):
            begun = time
        elif begun and "completed iteration with status" in said:
            found.append((begun, (time - begun).total_seconds()))
            begun = None
    return found


def logged(logs: Iterable[Path]) -> Iterator[tuple[dt.datetime, str, str]]:
    """What Dagster's daemons said: when, which one, what."""
    for log in logs:
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            if match := _LOGGED.match(_COLOUR.sub("", line)):
                time = dt.datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S %z")
                yield time, match[2], match[3]


def _utc(timestamp: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(timestamp, dt.UTC)
