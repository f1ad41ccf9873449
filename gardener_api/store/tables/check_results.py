"""The results of the checks that runs of the tables made, the newest of each date and table."""

import datetime as dt
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, select
from sqlalchemy.engine import Engine

from gardener_api.jobs.job import JobKey, clean_text
from gardener_api.store import schema
from gardener_api.store.engine import upsert, writing
from gardener_api.store.rows import chunks

_r = schema.check_results.c
_COLUMNS: tuple[ColumnElement[Any], ...] = (
    _r.key, _r.table, _r.name, _r.passed, _r.severity, _r.description, _r.metadata, _r.run_id, _r.at
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckResult:
    """What a check found in a partition."""

    table: str  # "<dataset>.<table>"
    name: str
    passed: bool
    severity: Literal["warn", "error"]  # if it has not passed
    description: str  # for people: what was found
    metadata: Mapping[str, Any] = field(default_factory=dict)  # JSON values


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedCheck:
    """A result with the run that recorded it, and when."""

    key: JobKey
    result: CheckResult
    run_id: str
    at: dt.datetime


class Checks:
    """The results of checks, in the same database as the jobs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = writing(engine)
        keys = {column.name for column in schema.check_results.primary_key}
        others = [column.name for column in schema.check_results.c if column.name not in keys]
        self._record = upsert(engine, schema.check_results, others)

    def record(
        self, key: JobKey, results: Iterable[CheckResult], *, run_id: str, now: dt.datetime
    ) -> None:
        """Save results; each replaces the earlier result of the same check, key and table.

        Args:
            key: Key of the job whose date and datatype was checked.
            results: What the checks found.
            run_id: The Dagster run that checked.
            now: The time.
        """
        rows = [
            {
                "key": str(key),
                "table": result.table,
                "name": result.name,
                "experiment": key.experiment,
                "datatype": key.datatype,
                "date": key.date,
                "passed": result.passed,
                "severity": result.severity,
                "description": clean_text(result.description),
                "metadata": json.dumps(dict(result.metadata)),
                "run_id": run_id,
                "at": now,
            }
            for result in results
        ]
        if rows:
            with self._writer.begin() as connection:
                connection.execute(self._record, rows)

    def of(self, key: JobKey) -> list[RecordedCheck]:
        """Return the results of a date and datatype, sorted by table and check name."""
        query = select(*_COLUMNS).where(_r.key == str(key)).order_by(_r.table, _r.name)
        with self._engine.begin() as connection:
            return [_recorded(row) for row in connection.execute(query)]

    def failing_of(self, keys: Collection[JobKey]) -> dict[JobKey, list[RecordedCheck]]:
        """Return the checks of these keys that have not passed."""
        found: dict[JobKey, list[RecordedCheck]] = {}
        with self._engine.begin() as connection:
            for chunk in chunks(sorted({str(key) for key in keys})):
                query = select(*_COLUMNS).where(schema.HAS_NOT_PASSED, _r.key.in_(chunk))
                for row in connection.execute(query.order_by(_r.key, _r.table, _r.name)):
                    check = _recorded(row)
                    found.setdefault(check.key, []).append(check)
        return found

    def failing(self, first: dt.date, last: dt.date) -> dict[JobKey, list[RecordedCheck]]:
        """Return the checks that have not passed, of the dates ``first`` to ``last``."""
        query = (
            select(*_COLUMNS)
            .where(schema.HAS_NOT_PASSED, _r.date.between(first, last))
            .order_by(_r.date, _r.key, _r.table, _r.name)
        )
        found: dict[JobKey, list[RecordedCheck]] = {}
        with self._engine.begin() as connection:
            for row in connection.execute(query):
                check = _recorded(row)
                found.setdefault(check.key, []).append(check)
        return found


def _recorded(row: Row[Any]) -> RecordedCheck:
    values = dict(row._mapping)
    return RecordedCheck(
        key=JobKey.parse(values.pop("key")),
        run_id=values.pop("run_id"),
        at=values.pop("at"),
        result=CheckResult(**values | {"metadata": json.loads(values["metadata"])}),
    )
