"""Random days through all operations and audits, with crashes and errors, against a model.

The model is plain Python and knows nothing of SQL: what a day's tables must hold follows from the
rows that its archives have, however often the work was interrupted.
"""

import datetime as dt
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gardener_api.audit_rules import DEFAULT_RULES
from gardener_dagster.planning.audits import (
    annotated_of_previous,
    ids_of_previous,
    rows_of_previous,
)
from gardener_dagster.planning.publication import judge
from gardener_dagster.warehouse.errors import RetriesExhausted
from gardener_dagster.warehouse.names import JobContext
from gardener_dagster.warehouse.objects import LoadSource

if TYPE_CHECKING:
    from tests.gardener_dagster.warehouse.operations.conftest import Lab

DATE = dt.date(2024, 3, 1)
BEFORE = dt.date(2024, 2, 29)
KEYS = {
    "annotation2": ("id",),
    "ndt7": ("id",),
    "tcpinfo": ("id", "parser.ArchiveURL", "parser.Filename"),
}
IDS = st.sampled_from(["u1", "u2", "u3", "u1", "u2", "u3", None, ""])
"""Few, so that most days have an id twice and most ids have an annotation."""
EXAMPLES = int(os.environ.get("GARDENER_EXAMPLES", "5"))


@dataclass(frozen=True)
class Measured:
    """A row before it is written: an archive may have it several times.

    Attributes:
        value: tells rows apart that have everything else in common but the file.
    """

    id: str | None
    second: int
    filename: str
    value: float


Archive = tuple[Measured, ...]


@dataclass(frozen=True)
class Day:
    """What is under one date's prefix of one datatype: good archives, and what must be left out."""

    archives: tuple[Archive, ...]
    stale: tuple[Archive, ...] = ()
    orphans: tuple[Archive, ...] = ()

    def rows(self) -> list[tuple[str, Measured]]:
        return [(f"good{n}", row) for n, archive in enumerate(self.archives) for row in archive]


@dataclass(frozen=True)
class Trouble:
    """One thing going wrong.

    Attributes:
        at: after how many requests of the warehouse.
        kind: a crash before or after the request took effect, or an error that passes or persists.
        again: whether the repeat is the same attempt or a new one.
    """

    at: int
    kind: str
    again: str


@dataclass(frozen=True)
class Scenario:
    """Days of data in the order in which they are parsed, each with its troubles."""

    annotations_before: Day
    annotations: Day
    connections: Day
    tests: Day
    reparsed: Day | None
    threshold: float  # of the audits that protect what is published
    troubles: tuple[tuple[Trouble, ...], ...]


@st.composite
def archive(draw: st.DrawFn) -> Archive:
    measured = st.builds(Measured, IDS, st.integers(0, 2), st.just(""), st.just(0.0))
    rows = draw(st.lists(measured, min_size=1, max_size=5))
    named = [Measured(row.id, row.second, f"f{n}.json", float(n)) for n, row in enumerate(rows)]
    twice = draw(st.lists(st.sampled_from(named), max_size=3))
    return tuple(named + twice)


ARCHIVES = st.just(()) | st.lists(archive(), min_size=1, max_size=3).map(tuple)
LEFT_OUT = st.lists(archive(), max_size=1).map(tuple)
DAYS = st.builds(Day, ARCHIVES, LEFT_OUT, LEFT_OUT)
TROUBLES = st.lists(
    st.builds(
        Trouble,
        st.integers(0, 70),
        st.sampled_from(["crash before", "crash after", "passes", "persists"]),
        st.sampled_from(["same attempt", "new attempt"]),
    ),
    max_size=2,
).map(tuple)
SCENARIOS = st.builds(
    Scenario,
    *[DAYS] * 4,
    st.none() | DAYS,
    st.sampled_from([0.0, 0.3, 0.5, 0.8, 1.0]),
    st.tuples(*[TROUBLES] * 5),
)


# -- the model -----------------------------------------------------------------------------------


def deduplicated(datatype: str, rows: Iterable[tuple[str, Measured]]) -> list[tuple[str, Measured]]:
    """One row per key, newest first, then by archive and file; rows without an id stay all."""
    kept: dict[Any, tuple[str, Measured]] = {}
    keyless = []
    for name, row in rows:
        if not row.id:
            keyless.append((name, row))
            continue
        key = (row.id, name, row.filename) if datatype == "tcpinfo" else row.id
        rank = (row.second, name, row.filename)
        if key not in kept or rank > (kept[key][1].second, kept[key][0], kept[key][1].filename):
            kept[key] = (name, row)
    return [*kept.values(), *keyless]


def site(name: str, row: Measured, date: dt.date) -> str:
    return f"{date.isoformat()}/{name}/{row.filename}"


def annotated(scenario: Scenario, identity: str | None) -> str | None:
    """The site that the model joins to an id: of its own date, else of the day before."""
    if not identity:
        return None
    for day, date in ((scenario.annotations, DATE), (scenario.annotations_before, BEFORE)):
        for name, row in deduplicated("annotation2", day.rows()):
            if row.id == identity:
                return site(name, row, date)
    return None


@dataclass
class Audited:
    """What is published of a datatype and date by the model, whose audits may keep it.

    Attributes:
        threshold: Of all audits.
        raw: What raw holds.
        joined_day: What the joined table holds.
        joined: Rows of it, and how many have an annotation; None: there is none.
    """

    threshold: float
    raw: Day = Day(())
    joined_day: Day = Day(())
    joined: tuple[int, int] | None = None

    def after(self, datatype: str, day: Day, scenario: Scenario) -> "Audited":
        """What is published once a new day has gone through."""
        old, new = (deduplicated(datatype, each.rows()) for each in (self.raw, day))
        ids = [{identity(datatype, *row) for row in rows if row[1].id} for rows in (old, new)]
        fewer = len(new) < self.threshold * len(old)
        lost = len(ids[0] & ids[1]) < self.threshold * len(ids[0])
        raw = self.raw if old and new and (fewer or lost) else day
        if datatype == "annotation2":
            return replace(self, raw=raw)
        rows = deduplicated(datatype, raw.rows())
        known = sum(annotated(scenario, row.id) is not None for _, row in rows)
        if rows and self.joined and self.joined[0]:
            share = self.joined[1] / self.joined[0]
            if known / len(rows) < self.threshold * share:
                return replace(self, raw=raw)
        return replace(self, raw=raw, joined_day=raw, joined=(len(rows), known) if rows else None)


def identity(datatype: str, name: str, row: Measured) -> Any:
    """The dedup key of a row."""
    return (row.id, name, row.filename) if datatype == "tcpinfo" else row.id


# -- the real thing ------------------------------------------------------------------------------


def write(lab: "Lab", rows: Any, datatype: str, date: dt.date, day: Day) -> LoadSource:
    """Writes a day's objects as its parser would, and chooses among all that are there."""

    def made(name: str, row: Measured) -> Any:
        if datatype == "ndt7":
            return rows.ndt7(
                row.id,
                date=date,
                second=row.second,
                archive=name,
                filename=row.filename,
                throughput=row.value,
            )
        if datatype == "tcpinfo":
            return rows.tcpinfo(
                row.id, archive=name, filename=row.filename, second=row.second, date=date
            )
        return rows.annotation(
            row.id,
            site(name, row, date),
            date=date,
            second=row.second,
            archive=name,
            filename=row.filename,
        )

    def content(kind: str, archives: Sequence[Archive]) -> dict[str, list[Any]]:
        return {
            f"{kind}{n}": [made(f"{kind}{n}", row) for row in archive]
            for n, archive in enumerate(archives)
        }

    lab.wipe(datatype=datatype, date=date)
    stale = content("stale", day.stale)
    lab.write(stale | content("orphan", day.orphans), datatype=datatype, date=date)
    good = content("good", day.archives)
    return lab.source(good, datatype=datatype, date=date, stale=list(stale))


class Driver:
    """Runs a piece of work until it succeeds, with trouble on the way."""

    def __init__(self, lab: "Lab", crash: type[Exception], troubles: Sequence[Trouble]) -> None:
        self.lab, self.crash, self.troubles = lab, crash, list(troubles)

    def _arm(self) -> Trouble | None:
        self.lab.faults.pending.clear()
        if not self.troubles:
            return None
        trouble = self.troubles.pop(0)
        if trouble.kind.startswith("crash"):
            self.lab.faults.crash(skip=trouble.at, after=trouble.kind.endswith("after"))
        else:
            times = 2 if trouble.kind == "passes" else 10**6
            self.lab.faults.refuse(503, "backendError", skip=trouble.at, times=times)
        return trouble

    def __call__(self, date: dt.date, work: Callable[[JobContext], None]) -> None:
        ctx = self.lab.context(date)
        while True:
            trouble = self._arm()
            try:
                work(ctx)
            except (self.crash, RetriesExhausted):
                if trouble is None:
                    raise
                if trouble.again == "new attempt":
                    ctx = JobContext(run_id=ctx.run_id, date=date, attempt=ctx.attempt + 1)
            else:
                self.lab.faults.pending.clear()
                return


def work_on(
    lab: "Lab", datatype: str, source: LoadSource, audits: "Audited", ctx: JobContext
) -> None:
    """All operations of one date, as far as audits let them.

    A day whose rows are all gone may empty the tables: then nobody audits.
    """
    tables, warehouse, key = (
        lab.tables(datatype),
        lab.warehouse(settings=lab.impatient),
        KEYS[datatype],
    )
    warehouse.load(tables, source, ctx)
    keys = warehouse.dedup(tables, key, ctx).keys
    found = {
        "rows_of_previous": rows_of_previous(
            keys.rows, keys.published_unique or None, share=audits.threshold
        ),
        "ids_of_previous": ids_of_previous(keys.kept, keys.removed, share=audits.threshold),
    }
    if keys.rows and judge(found, DEFAULT_RULES, published=bool(keys.published)).held:
        warehouse.delete(tables, ctx)
    else:
        warehouse.copy(tables, ctx, parse_had_no_files=True, may_empty=True)
        warehouse.delete(tables, ctx)
    if datatype != "annotation2":
        count = warehouse.survey.count_annotated(tables, ctx)
        before = audits.joined if count.published else None
        verdict = annotated_of_previous(count.rows, count.annotated, before, share=audits.threshold)
        found = {"annotated_of_previous": verdict}
        if not count.rows or not judge(found, DEFAULT_RULES, published=bool(count.published)).held:
            warehouse.join(tables, ctx, annotations_known_empty=True, may_empty=True)


def check_raw(lab: "Lab", datatype: str, date: dt.date, day: Day) -> None:
    tables = lab.tables(datatype)
    assert lab.rows(tables.tmp_partition(date)) == []
    found = Counter(
        (row["id"], row["parser"]["ArchiveURL"].rsplit("/", 1)[1], row["parser"]["Filename"])
        for row in lab.rows(tables.raw_partition(date), "id, parser")
    )
    expected = Counter(
        (row.id, f"{name}.tgz", row.filename) for name, row in deduplicated(datatype, day.rows())
    )
    assert found == expected


def check_joined(lab: "Lab", datatype: str, day: Day, scenario: Scenario) -> None:
    found = Counter(
        (row["id"], row["parser"]["Filename"], (row["server"] or {}).get("Site"))
        for row in lab.rows(lab.tables(datatype).joined_partition(DATE), "id, parser, server")
    )
    expected = Counter(
        (row.id, row.filename, annotated(scenario, row.id))
        for _, row in deduplicated(datatype, day.rows())
    )
    assert found == expected


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking would take minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(scenario=SCENARIOS)
def test_whatever_happens_the_tables_are_what_the_model_says(
    labs: Callable[[], "Lab"], rows: Any, crash: type[Exception], scenario: Scenario
) -> None:
    lab = labs()
    days = [
        ("annotation2", BEFORE, scenario.annotations_before),
        ("annotation2", DATE, scenario.annotations),
        ("tcpinfo", DATE, scenario.connections),
        ("ndt7", DATE, scenario.tests),
        ("ndt7", DATE, scenario.reparsed),
    ]
    published: dict[tuple[str, dt.date], Audited] = {}
    for (datatype, date, day), troubles in zip(days, scenario.troubles, strict=True):
        if day is None:
            continue
        source = write(lab, rows, datatype, date, day)
        before = published.get((datatype, date), Audited(scenario.threshold))
        Driver(lab, crash, troubles)(date, partial(work_on, lab, datatype, source, before))
        after = published[datatype, date] = before.after(datatype, day, scenario)
        check_raw(lab, datatype, date, after.raw)
        if datatype != "annotation2":
            check_joined(lab, datatype, after.joined_day, scenario)
