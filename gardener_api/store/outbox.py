"""Observations that Dagster does not have yet: written with the change, removed when delivered.

``reporter`` delivers them.
"""

import datetime as dt
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, select
from sqlalchemy.engine import Engine

from gardener_api.jobs.job import JobKey
from gardener_api.jobs.observations import Observation
from gardener_api.store import schema
from gardener_api.store.engine import upsert, writing

_o, _l = schema.outbox.c, schema.leases.c
_LEASE = "outbox"


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """An observation in the outbox."""

    number: int  # its place in the order of delivery
    observation: Observation


@dataclass(frozen=True, kw_only=True, slots=True)
class Backlog:
    """The size and the age of the outbox."""

    count: int
    oldest: dt.datetime | None  # time of the oldest observation; None: the outbox is empty


class Outbox:
    """The outbox, in the same database as the jobs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = writing(engine)

    def add(self, connection: Connection, observations: Sequence[Observation]) -> None:
        """Add observations, in the transaction of the change that they describe."""
        if observations:
            rows = [
                {
                    "key": str(observation.key),
                    "at": observation.at,
                    "description": observation.description,
                    "metadata": json.dumps(observation.metadata),
                }
                for observation in observations
            ]
            connection.execute(insert(schema.outbox), rows)

    def first(self, limit: int) -> list[Waiting]:
        """Return the next observations to deliver, at most ``limit``.

        Observations of one job are in the order of their commits: each was numbered while its
        transaction held the lock of the job.
        """
        query = select(schema.outbox).order_by(_o.number).limit(limit)
        with self._engine.begin() as connection:
            return [
                Waiting(
                    number=row.number,
                    observation=Observation(
                        key=JobKey.parse(row.key),
                        at=row.at,
                        description=row.description,
                        metadata=json.loads(row._mapping["metadata"]),
                    ),
                )
                for row in connection.execute(query)
            ]

    def remove(self, numbers: Collection[int]) -> None:
        """Remove delivered observations."""
        with self._writer.begin() as connection:
            connection.execute(delete(schema.outbox).where(_o.number.in_(numbers)))

    def drop(self, *, before: dt.datetime, keep: int) -> int:
        """Drop observations that are too old, and the oldest of too many.

        Args:
            before: Drop the observations from before this time.
            keep: Keep at most this many, the newest.

        Returns:
            The number of dropped observations.
        """
        oldest_kept = (
            select(_o.number).order_by(_o.number.desc()).limit(1).offset(keep).scalar_subquery()
        )
        surplus = delete(schema.outbox).where((_o.at < before) | (_o.number <= oldest_kept))
        with self._writer.begin() as connection:
            return connection.execute(surplus).rowcount

    def backlog(self) -> Backlog:
        """Return the size and the age of the outbox."""
        query = select(func.count(), func.min(_o.at))
        with self._engine.begin() as connection:
            count, oldest = connection.execute(query).one()
        return Backlog(count=count, oldest=oldest)

    def lease(self, holder: str, *, until: dt.datetime, now: dt.datetime) -> bool:
        """Take or renew the lease of the one process that delivers.

        Args:
            holder: The name of the process.
            until: When the lease ends if it is not renewed.
            now: The time.

        Returns:
            Whether this process has the lease now.
        """
        take = upsert(
            self._writer,
            schema.leases,
            ["holder", "expires"],
            only=(_l.holder == holder) | (_l.expires <= now),
        )
        with self._writer.begin() as connection:
            connection.execute(take.values(name=_LEASE, holder=holder, expires=until))
            held_by = select(_l.holder).where(_l.name == _LEASE)
            return bool(connection.execute(held_by).scalar_one() == holder)

    def release(self, holder: str) -> None:
        """Release the lease, so that another process need not wait until it expires."""
        with self._writer.begin() as connection:
            connection.execute(delete(schema.leases).where(_l.name == _LEASE, _l.holder == holder))
