"""What was written to BigQuery: the versions of partitions, and the operations with their cost.

A partition's version increases by one each time it is written; a join records the versions that it
read. So the store knows, without a query to BigQuery, whether a joined partition is due.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from sqlalchemy import Row, and_, func, insert, or_, select, union
from sqlalchemy.engine import Engine

from gardener_api.jobs.job import JobKey
from gardener_api.store import schema
from gardener_api.store.engine import upsert, writing

_p = schema.partitions.c
_DAY = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class JoinInputs:
    """The versions of the partitions that a join reads; 0: never made."""

    raw: int
    annotations: int
    annotations_before: int  # of the day before


@dataclass(frozen=True, kw_only=True, slots=True)
class DueJoin:
    """A joined partition to be made: its inputs have changed since the last join."""

    date: dt.date
    inputs: JoinInputs
    replaces: int  # the version of the joined partition, 0 if it was never made
    since: dt.datetime | None = field(default=None, compare=False)  # when the newest input was made


@dataclass(frozen=True, kw_only=True, slots=True)
class PartitionRecord:
    """A partition as it was last written."""

    table: str
    date: dt.date
    version: int  # from 1
    rows: int
    run_id: str
    requester: str  # who asked for that run, "" if not known
    job: int | None  # number of the parse job whose rows it holds; None: not known, or a join
    made: dt.datetime
    inputs: JoinInputs | None  # of a joined table: what it was made from
    attempted: JoinInputs | None  # of a joined table: inputs of the last attempt


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """One operation on a table, with its cost."""

    key: str  # of the job of that date and datatype
    table: str
    operation: str  # load, dedup, copy, delete or join
    run_id: str
    bq_job_ids: tuple[str, ...]
    rows: int
    bytes: int  # read from objects or processed
    slot_seconds: float
    bytes_billed: int
    seconds: float
    at: dt.datetime
    objects: int | None  # number that a load read; None for other operations


class TableLog:
    """The versions and operations of the tables, in the same database as the jobs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = writing(engine)

    def record_partition(
        self,
        table: str,
        date: dt.date,
        *,
        rows: int,
        run_id: str,
        requester: str = "",
        job: int | None = None,
        now: dt.datetime,
    ) -> int:
        """Record that a partition was written.

        Args:
            table: ``<dataset>.<table>``.
            date: The partition.
            rows: Number of rows that it has now.
            run_id: The Dagster run that wrote it.
            requester: Who asked for that run; the same when the run is retried.
            job: Number of the parse job whose rows it holds; ``None``: not known.
            now: The time.

        Returns:
            Its new version; the first one is 1.
        """
        made = {"rows": rows, "run_id": run_id, "requester": requester, "job": job, "made": now}
        return self._write(table, date, made, bump=True)

    def partition(self, table: str, date: dt.date) -> PartitionRecord | None:
        """Return the partition as it was last written; ``None`` if it never was."""
        query = select(schema.partitions).where(_p.table == table, _p.date == date, _p.version > 0)
        with self._engine.begin() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        return PartitionRecord(
            table=row.table,
            date=row.date,
            version=row.version,
            rows=row.rows,
            run_id=row.run_id,
            requester=row.requester,
            job=row.job,
            made=row.made,
            inputs=_inputs(row.input_raw, row.input_annotations, row.input_before),
            attempted=_inputs(row.attempted_raw, row.attempted_annotations, row.attempted_before),
        )

    def newest_date(self, table: str) -> dt.date | None:
        """Return the newest partition of a table that was ever written; ``None`` if none was."""
        query = select(func.max(_p.date)).where(_p.table == table, _p.version > 0)
        with self._engine.begin() as connection:
            newest: dt.date | None = connection.execute(query).scalar()
        return newest

    def join_inputs(self, raw: str, annotations: str, date: dt.date) -> JoinInputs:
        """Return the current versions of the inputs of a join."""
        query = select(_p.table, _p.date, _p.version).where(
            or_(
                and_(_p.table == raw, _p.date == date),
                and_(_p.table == annotations, _p.date.in_([date, date - _DAY])),
            )
        )
        with self._engine.begin() as connection:
            versions = {(t, d): version for t, d, version in connection.execute(query)}
        return JoinInputs(
            raw=versions.get((raw, date), 0),
            annotations=versions.get((annotations, date), 0),
            annotations_before=versions.get((annotations, date - _DAY), 0),
        )

    def begin_join(
        self, joined: str, date: dt.date, inputs: JoinInputs, *, run_id: str, now: dt.datetime
    ) -> None:
        """Record an attempt to join exactly these inputs, so that the join is not due again."""
        del run_id, now  # the partition keeps those of the run that made it
        self._write(joined, date, _attempted(inputs), bump=False)

    def record_join(
        self,
        joined: str,
        date: dt.date,
        inputs: JoinInputs,
        *,
        rows: int,
        run_id: str,
        requester: str = "",
        now: dt.datetime,
    ) -> int:
        """Record that a joined partition was written, and its inputs.

        Args:
            joined: ``<dataset>.<table>``.
            date: The partition.
            inputs: The versions that it was made from.
            rows: Number of rows that it has now.
            run_id: The Dagster run that wrote it.
            requester: Who asked for that run; the same when the run is retried.
            now: The time.

        Returns:
            Its new version.
        """
        made = {
            "rows": rows,
            "run_id": run_id,
            "requester": requester,
            "made": now,
            "input_raw": inputs.raw,
            "input_annotations": inputs.annotations,
            "input_before": inputs.annotations_before,
        }
        return self._write(joined, date, made | _attempted(inputs), bump=True)

    def joins_due(
        self, raw: str, annotations: str, joined: str, *, newest: dt.date
    ) -> list[DueJoin]:
        """Return the dates whose inputs differ from those last joined and those last attempted.

        They include dates whose rows this gardener has never written, once it has written
        annotations for them: an older gardener may have written rows, which only BigQuery shows.
        Their ``inputs.raw`` is 0.

        Args:
            raw: The raw table, as ``<dataset>.<table>``.
            annotations: The table of the annotations.
            joined: The joined table.
            newest: The last date that can have rows written by an older gardener.
        """
        read = union(
            select(_p.day_before).where(_p.table == raw, _p.version > 0),
            select(_p.day_before).where(_p.table == annotations, _p.version > 0),
            select(_p.date).where(_p.table == annotations, _p.version > 0),
        ).subquery()
        day_before = read.c.day_before
        r, a, b, j = (schema.partitions.alias(name) for name in ("r", "a", "b", "j"))
        *versions, replaces = (func.coalesce(table.c.version, 0) for table in (r, a, b, j))
        made = [j.c.input_raw, j.c.input_annotations, j.c.input_before]
        tried = [j.c.attempted_raw, j.c.attempted_annotations, j.c.attempted_before]
        source = (
            read.outerjoin(r, and_(r.c.table == raw, r.c.day_before == day_before))
            .outerjoin(a, and_(a.c.table == annotations, a.c.day_before == day_before))
            .outerjoin(b, and_(b.c.table == annotations, b.c.date == day_before))
            .outerjoin(j, and_(j.c.table == joined, j.c.day_before == day_before))
        )
        made_at = [table.c.made for table in (r, a, b)]
        query = select(day_before, *versions, replaces, *made_at).select_from(source)
        query = query.order_by(day_before)
        query = query.where(or_(versions[0] > 0, day_before < newest))
        for known in (made, tried):
            pairs = zip(versions, known, strict=True)
            query = query.where(or_(*(now.is_distinct_from(then) for now, then in pairs)))
        with self._engine.begin() as connection:
            return [
                DueJoin(
                    date=row[0] + _DAY,
                    inputs=JoinInputs(*row[1:4]),
                    replaces=row[4],
                    since=max((at for at in row[5:] if at), default=None),
                )
                for row in connection.execute(query)
            ]

    def record_operation(
        self,
        *,
        key: JobKey,
        table: str,
        operation: str,
        run_id: str,
        bq_job_ids: Sequence[str],
        rows: int,
        bytes: int,
        slot_seconds: float,
        bytes_billed: int,
        seconds: float,
        objects: int | None = None,
        now: dt.datetime,
    ) -> None:
        """Record what an operation on a table did and cost.

        Args:
            key: Key of the job of that date and datatype.
            table: ``<dataset>.<table>``.
            operation: ``load``, ``dedup``, ``copy``, ``delete`` or ``join``.
            run_id: The Dagster run.
            bq_job_ids: IDs of its BigQuery jobs.
            rows: Number of rows written.
            bytes: Bytes read from objects, or processed by queries.
            slot_seconds: BigQuery slot time.
            bytes_billed: Bytes billed by BigQuery.
            seconds: Its duration.
            objects: Number of objects that a load read.
            now: The time of its end.
        """
        with self._writer.begin() as connection:
            connection.execute(
                insert(schema.operations).values(
                    key=str(key),
                    table=table,
                    operation=operation,
                    run_id=run_id,
                    bq_job_ids=" ".join(bq_job_ids),
                    rows=rows,
                    bytes=bytes,
                    slot_seconds=slot_seconds,
                    bytes_billed=bytes_billed,
                    seconds=seconds,
                    objects=objects,
                    at=now,
                )
            )

    def operations(self, key: JobKey) -> list[Operation]:
        """Return the operations on the tables of a date and datatype, the oldest first."""
        o = schema.operations.c
        columns = [o[field.name] for field in fields(Operation)]
        query = select(*columns).where(o.key == str(key)).order_by(o.number)
        with self._engine.begin() as connection:
            return [_operation(row) for row in connection.execute(query)]

    def _write(self, table: str, date: dt.date, values: dict[str, Any], *, bump: bool) -> int:
        row = {
            "table": table,
            "date": date,
            "day_before": date - _DAY,
            "version": int(bump),
            "rows": 0,
            "run_id": "",
        }
        version = _p.version + int(bump)
        statement = upsert(self._writer, schema.partitions, list(values), version=version)
        with self._writer.begin() as connection:
            written = statement.values(row | values).returning(_p.version)
            return int(connection.execute(written).scalar_one())


def _attempted(inputs: JoinInputs) -> dict[str, int]:
    return {
        "attempted_raw": inputs.raw,
        "attempted_annotations": inputs.annotations,
        "attempted_before": inputs.annotations_before,
    }


def _inputs(raw: int | None, annotations: int | None, before: int | None) -> JoinInputs | None:
    if raw is None or annotations is None or before is None:
        return None
    return JoinInputs(raw=raw, annotations=annotations, annotations_before=before)


def _operation(row: Row[Any]) -> Operation:
    values = row._asdict()
    return Operation(**values | {"bq_job_ids": tuple(values["bq_job_ids"].split())})
