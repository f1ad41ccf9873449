"""Partitions that audits held back, and what people decided about them. No row is ever removed.

A row is *waiting* until a person decides, *decided* until a run has carried out the decision, then
*settled*. ``staged`` identifies the audited rows: a decision applies to exactly those.
"""

import datetime as dt
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, TextClause, insert, select, update
from sqlalchemy.engine import Engine

from gardener_api.jobs import table_stages
from gardener_api.jobs.job import Change, Job, JobKey, clean_text
from gardener_api.store import schema
from gardener_api.store.engine import writing
from gardener_api.store.rows import is_latest, locked, save_jobs, select_jobs

_h = schema.held_partitions.c
_Where = ColumnElement[bool] | TextClause
_IS_WAITING: tuple[_Where, ...] = (schema.IS_UNSETTLED, _h.decision.is_(None))
_IS_DECIDED: tuple[_Where, ...] = (schema.IS_UNSETTLED, _h.decision.is_not(None))


class Decision(StrEnum):
    """A person's decision about a held partition."""

    ACCEPT = "accept"
    REJECT = "reject"


class Outcome(StrEnum):
    """How a held partition was settled."""

    PUBLISHED = "published"
    REJECTED = "rejected"
    SUPERSEDED = "superseded"  # newer rows replaced it, or it no longer exists


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """The finding of an audit that holds a partition."""

    audit: str
    description: str  # for people, with both numbers
    numbers: Mapping[str, Any] = field(default_factory=dict)  # JSON values


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldPartition:
    """A partition that audits held back."""

    number: int
    key: JobKey
    table: str  # "<dataset>.<table>" whose published partition stays
    staged: str  # identifies the audited rows
    job: int | None  # number of the parse job
    findings: Sequence[Finding]
    run_id: str
    at: dt.datetime
    decision: Decision | None
    audits: Collection[str]  # those that the decision accepts
    decided_by: str
    reason: str
    decided: dt.datetime | None
    outcome: Outcome | None
    settled: dt.datetime | None


class HeldPartitions:
    """The held partitions, in the same database as the jobs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = writing(engine)

    def record(
        self,
        key: JobKey,
        table: str,
        findings: Iterable[Finding],
        *,
        staged: str,
        job: int | None,
        run_id: str,
        now: dt.datetime,
    ) -> int:
        """Record that a partition is held; its earlier unsettled rows are superseded.

        Args:
            key: Key of the job of its date.
            table: ``<dataset>.<table>`` whose published partition stays.
            findings: Findings of the audits that hold it.
            staged: Identifies the audited rows.
            job: Number of the parse job.
            run_id: The Dagster run that audited.
            now: The time.

        Returns:
            The number of the held partition.
        """
        row = {
            "key": str(key),
            "experiment": key.experiment,
            "datatype": key.datatype,
            "date": key.date,
            "table": table,
            "staged": staged,
            "job": job,
            "findings": json.dumps(
                [asdict(f) | {"description": clean_text(f.description)} for f in findings]
            ),
            "run_id": run_id,
            "at": now,
        }
        with self._writer.begin() as connection:
            self._settle(connection, table, key.date, Outcome.SUPERSEDED, now)
            made = insert(schema.held_partitions).values(row).returning(_h.number)
            return int(connection.execute(made).scalar_one())

    def decide(
        self,
        number: int,
        decision: Decision,
        *,
        by: str,
        reason: str = "",
        audits: Collection[str] = (),
        now: dt.datetime,
    ) -> HeldPartition | None:
        """Record a decision about a partition that waits for one.

        Args:
            number: Number of the held partition.
            decision: The decision.
            by: Who decides.
            reason: Why.
            audits: The audits that are accepted; none: all that hold the partition.
            now: The time.

        Returns:
            The partition; ``None`` if it is not waiting for a decision.
        """
        with self._writer.begin() as connection:
            query = select(schema.held_partitions).where(_h.number == number, *_IS_WAITING)
            row = connection.execute(query.with_for_update()).one_or_none()
            if row is None:
                return None
            named = audits or [finding.audit for finding in _held(row).findings]
            values = {
                "decision": decision,
                "audits": " ".join(sorted(named)) if decision is Decision.ACCEPT else "",
                "decided_by": clean_text(by),
                "reason": clean_text(reason),
                "decided": now,
            }
            decided = update(schema.held_partitions).where(_h.number == number).values(values)
            row = connection.execute(decided.returning(*schema.held_partitions.c)).one()
            held = _held(row)
            jobs = locked(connection, select_jobs().where(is_latest([str(held.key)])))
            save_jobs(connection, [_noted(job, held, now) for job in jobs])
            return held

    def settle(
        self, table: str, date: dt.date, outcome: Outcome, *, staged: str = "", now: dt.datetime
    ) -> None:
        """Settle what is held of a partition; do nothing if nothing is.

        Args:
            table: ``<dataset>.<table>``.
            date: The partition.
            outcome: Outcome of the rows with that decision; everything else is superseded.
            staged: Identifies the published rows, which may differ from the accepted ones.
            now: The time.
        """
        with self._writer.begin() as connection:
            self._settle(connection, table, date, outcome, now, staged=staged)

    def waiting(self) -> list[HeldPartition]:
        """Return the partitions that wait for a decision, the oldest first."""
        return self._all(*_IS_WAITING)

    def decided(self) -> list[HeldPartition]:
        """Return the partitions with a decision not carried out yet, the oldest first."""
        return self._all(*_IS_DECIDED)

    def current(self, table: str, date: dt.date) -> HeldPartition | None:
        """Return the unsettled row of a partition; ``None`` if there is none."""
        found = self._all(schema.IS_UNSETTLED, _h.table == table, _h.date == date)
        return found[-1] if found else None

    def accepted(self, table: str, date: dt.date, staged: str) -> frozenset[str]:
        """Return the audits that people accepted for exactly these rows."""
        same = (_h.table == table, _h.date == date, _h.staged == staged)
        decisions = self._all(*same, _h.decision == Decision.ACCEPT)
        return frozenset(audit for each in decisions for audit in each.audits)

    def of(self, key: JobKey) -> list[HeldPartition]:
        """Return all rows of a date and datatype, also settled ones, the oldest first."""
        return self._all(_h.key == str(key))

    def _all(self, *where: _Where) -> list[HeldPartition]:
        query = select(schema.held_partitions).where(*where).order_by(_h.number)
        with self._engine.begin() as connection:
            return [_held(row) for row in connection.execute(query)]

    @staticmethod
    def _settle(
        connection: Connection,
        table: str,
        date: dt.date,
        outcome: Outcome,
        now: dt.datetime,
        *,
        staged: str = "",
    ) -> None:
        unsettled = update(schema.held_partitions).where(
            schema.IS_UNSETTLED, _h.table == table, _h.date == date
        )
        fits = {
            Outcome.PUBLISHED: (_h.decision == Decision.ACCEPT, _h.staged == staged),
            Outcome.REJECTED: (_h.decision == Decision.REJECT,),
        }
        if outcome in fits:
            done = unsettled.where(*fits[outcome]).values(settled=now, outcome=outcome)
            connection.execute(done)
        connection.execute(unsettled.values(settled=now, outcome=Outcome.SUPERSEDED))


def _noted(job: Job, held: HeldPartition, now: dt.datetime) -> Change:
    """Record the decision in the job's events and, if rejected, in its error."""
    by = f"{held.table}: by {held.decided_by}" + (f": {held.reason}" if held.reason else "")
    if held.decision is Decision.ACCEPT:
        return table_stages.decide(job, table_stages.ACCEPTED, detail=by, now=now)
    error = (
        f"rejected: {by}. What to do: nothing, the published partition stays; to have the date"
        " made anew, materialize its parsed asset in Dagster"
    )
    return table_stages.decide(job, table_stages.REJECTED, detail=by, error=error, now=now)


def _held(row: Row[Any]) -> HeldPartition:
    values = row._asdict()
    for name in ("experiment", "datatype", "date"):
        del values[name]
    return HeldPartition(
        **values
        | {
            "key": JobKey.parse(values["key"]),
            "findings": tuple(Finding(**each) for each in json.loads(values["findings"])),
            "audits": tuple(values["audits"].split()),
            "decision": Decision(values["decision"]) if values["decision"] else None,
            "outcome": Outcome(values["outcome"]) if values["outcome"] else None,
        }
    )
