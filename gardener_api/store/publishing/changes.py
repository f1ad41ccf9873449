"""What each version of a published partition changed. No row is ever removed.

``table_versions`` has the current version.
"""

import datetime as dt
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.engine import Engine

from gardener_api.store import schema
from gardener_api.store.engine import upsert, writing
from gardener_api.store.rows import parser_versions

_v = schema.partition_versions.c


@dataclass(frozen=True, kw_only=True, slots=True)
class PartitionChange:
    """A version of a published partition, compared with the one that it replaced."""

    table: str  # "<dataset>.<table>"
    date: dt.date
    version: int  # from 1
    run_id: str
    made: dt.datetime
    rows: int
    rows_before: int | None = None  # of the version before; None: not known
    ids_added: int | None = None  # new dedup keys; None: not counted
    ids_removed: int | None = None
    ids_kept: int | None = None
    duplicates: int | None = None  # duplicate rows that were removed
    annotated: int | None = None  # rows with an annotation; None: not a joined table
    parser_versions: tuple[str, ...] = ()  # of its rows


class Changes:
    """The changes of partitions, in the same database as the jobs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = writing(engine)
        keys = {column.name for column in schema.partition_versions.primary_key}
        others = [c.name for c in schema.partition_versions.c if c.name not in keys]
        self._record = upsert(engine, schema.partition_versions, others)

    def record(self, change: PartitionChange) -> None:
        """Record what a version changed; repeating the call is safe."""
        versions = schema.VERSION_SEPARATOR.join(change.parser_versions)
        with self._writer.begin() as connection:
            values = asdict(change) | {"parser_versions": versions}
            connection.execute(self._record.values(values))

    def of(self, table: str, date: dt.date, *, limit: int = 20) -> list[PartitionChange]:
        """Return the recorded versions of a partition, the newest first, at most ``limit``."""
        query = select(schema.partition_versions).where(_v.table == table, _v.date == date)
        query = query.order_by(_v.version.desc()).limit(limit)
        with self._engine.begin() as connection:
            return [_change(row) for row in connection.execute(query)]


def _change(row: Row[Any]) -> PartitionChange:
    versions = parser_versions(row.parser_versions)
    return PartitionChange(**row._asdict() | {"parser_versions": versions})
