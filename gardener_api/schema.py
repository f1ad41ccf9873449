"""The store's tables, their version, and how an older store is brought up to date.

What is in a database and how it gets there belongs here; how it is reached is ``database``'s, what
is done with it ``store``'s, ``queries``' and ``tables``'.
"""

import datetime as dt
from collections.abc import Callable, Sequence

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Date,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    TypeDecorator,
    func,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from gardener_api.jobs import ENDED, LEASE_EXPIRED, PARSE_ERROR, JobState
from gardener_api.words import one_line

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_MIGRATION_LOCK = 7_034_186_292_514_233  # any number that no other user of the database takes


class StoreError(RuntimeError):
    """The store cannot be used: it is not there, not a store, damaged, or of another version."""


class UtcTime(TypeDecorator[dt.datetime]):
    """An aware time, kept as microseconds since 1970: the same on every database, and it sorts."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: Dialect) -> int | None:
        """An aware time as a number; a naive one raises ``TypeError``."""
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> dt.datetime | None:
        """The number as a time in UTC."""
        return None if value is None else _EPOCH + value * _MICROSECOND


# Only INTEGER can be SQLite's row id.
_Number = BigInteger().with_variant(Integer, "sqlite")


def _states(states: frozenset[str]) -> str:
    return ", ".join(f"'{state}'" for state in sorted(states))


# Text, not parameters: a database uses a partial index only where it can see the constants.
IS_OPEN = text(f"state NOT IN ({_states(ENDED)})")
IS_UNANNOUNCED = text("parsed IS NOT NULL AND announced IS NULL AND state <> 'withdrawn'")
IS_OF_PARSERS = text(
    f"state IN ({_states(frozenset({JobState.INIT, LEASE_EXPIRED, PARSE_ERROR}))})"
)

metadata = MetaData()

version = Table("gardener_version", metadata, Column("version", Integer, nullable=False))

jobs = Table(
    "jobs",
    metadata,
    Column("number", _Number, primary_key=True),
    Column("bucket", String, nullable=False),
    Column("experiment", String, nullable=False),
    Column("datatype", String, nullable=False),
    Column("date", Date, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("state", String, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("daily", Boolean, nullable=False),
    Column("filter", Text, nullable=False),
    Column("tmp", String, nullable=False),
    Column("raw", String, nullable=False),
    Column("join", String, nullable=False),
    Column("archives", Integer),
    Column("detail", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("failed_in", String),
    Column("parser", String, nullable=False),
    Column("run_id", String, nullable=False),
    Column("created", UtcTime, nullable=False),
    Column("entered", UtcTime, nullable=False),
    Column("leased", UtcTime),
    Column("lease_expires", UtcTime),
    Column("updated", UtcTime),
    Column("parsed", UtcTime),
    Column("ended", UtcTime),
    # Not fields of a Job: what it is found by.
    Column("key", String, nullable=False),
    Column("wire_id", String, nullable=False),
    Column("announced", UtcTime),  # when its parse was first reported to anybody
)
Index("jobs_one_generation", jobs.c.key, jobs.c.generation, unique=True)
Index("jobs_wire_id", jobs.c.wire_id, unique=True)
Index("jobs_one_open", jobs.c.key, unique=True, sqlite_where=IS_OPEN, postgresql_where=IS_OPEN)
# One for all that asks for a state, and in the order of `next`: of two indexes, SQLite chooses the
# one after which it has to sort.
Index("jobs_order", jobs.c.state, jobs.c.priority, jobs.c.date, jobs.c.rank, jobs.c.number)
Index("jobs_entered", jobs.c.entered, jobs.c.number)
# In the orders of the status page's list; no column of these two ever changes.
_BY_DATE = Index("jobs_date", jobs.c.date.desc(), jobs.c.rank, jobs.c.number.desc())
_BY_SOURCE = Index(
    "jobs_source",
    jobs.c.experiment,
    jobs.c.datatype,
    jobs.c.date.desc(),
    jobs.c.number.desc(),
)
Index(
    "jobs_unannounced",
    jobs.c.number,
    sqlite_where=IS_UNANNOUNCED,
    postgresql_where=IS_UNANNOUNCED,
)

requests = Table(
    "requests",
    metadata,
    Column("job", _Number, ForeignKey("jobs.number"), primary_key=True),
    Column("requester", String, primary_key=True),
    Column("run_id", String, nullable=False),
    Column("backfill_id", String),
    Column("covers_tables", Boolean, nullable=False),
    Column("asked", UtcTime, nullable=False),
    Column("reported", UtcTime),
    Column("withdrawn", UtcTime),
)
Index("requests_requester", requests.c.requester, requests.c.reported, requests.c.withdrawn)

events = Table(
    "events",
    metadata,
    Column("number", _Number, primary_key=True),
    Column("job", _Number, ForeignKey("jobs.number"), nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("state", String, nullable=False),
    Column("detail", Text, nullable=False),
    Column("left", String, nullable=False),
    Column("seconds", Float, nullable=False),
)
Index("events_job", events.c.job, events.c.number)
Index("events_state", events.c.state, events.c.job)
# When parsers took jobs and lost them: one event in ten.
_OF_PARSERS = Index(
    "events_of_parsers",
    events.c.state,
    events.c.at,
    sqlite_where=IS_OF_PARSERS,
    postgresql_where=IS_OF_PARSERS,
)

partitions = Table(
    "partitions",
    metadata,
    Column("table", String, primary_key=True),  # "<dataset>.<table>"
    Column("date", Date, primary_key=True),
    Column("day_before", Date, nullable=False),  # SQL has no portable way to subtract a day
    Column("version", Integer, nullable=False),  # 0: never made, a join of it was attempted
    Column("rows", BigInteger, nullable=False),
    Column("run_id", String, nullable=False),
    Column("made", UtcTime),
    # Of a joined table: the versions that it was made from, and that were last attempted.
    Column("input_raw", Integer),
    Column("input_annotations", Integer),
    Column("input_before", Integer),
    Column("attempted_raw", Integer),
    Column("attempted_annotations", Integer),
    Column("attempted_before", Integer),
)
_BY_DAY_BEFORE = Index("partitions_day_before", partitions.c.table, partitions.c.day_before)

operations = Table(
    "operations",
    metadata,
    Column("number", _Number, primary_key=True),
    Column("key", String, nullable=False),  # of the job whose date and datatype it was for
    Column("table", String, nullable=False),
    Column("operation", String, nullable=False),
    Column("run_id", String, nullable=False),
    Column("bq_job_ids", Text, nullable=False),  # separated by spaces
    Column("rows", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("slot_seconds", Float, nullable=False),
    Column("bytes_billed", BigInteger, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("objects", BigInteger),  # that a load read; of no other operation
)
Index("operations_key", operations.c.key, operations.c.number)

holds = Table(
    "holds",
    metadata,
    Column("table", String, primary_key=True),  # "<dataset>.<table>"
    Column("date", Date, primary_key=True),
    Column("run_id", String, nullable=False),
    Column("since", UtcTime, nullable=False),
)

Migration = Callable[[Connection], None]


def _add_holds(connection: Connection) -> None:
    connection.execute(
        text(
            'CREATE TABLE holds ("table" VARCHAR NOT NULL, date DATE NOT NULL,'
            " run_id VARCHAR NOT NULL, since BIGINT NOT NULL,"
            ' PRIMARY KEY ("table", date))'
        )
    )


def _index_what_the_status_page_asks(connection: Connection) -> None:
    for index in (_BY_DATE, _BY_SOURCE, _OF_PARSERS):
        index.create(connection)


def _count_objects(connection: Connection) -> None:
    connection.execute(text("ALTER TABLE operations ADD COLUMN objects BIGINT"))


def _index_partitions_by_the_day_before(connection: Connection) -> None:
    _BY_DAY_BEFORE.create(connection)


MIGRATIONS: Sequence[Migration] = (
    _add_holds,
    _index_what_the_status_page_asks,
    _count_objects,
    _index_partitions_by_the_day_before,
)
"""Entry i takes a store of version i + 1 to version i + 2. An entry is never changed or removed."""
NEWEST = len(MIGRATIONS) + 1
"""The version of a store that this gardener opened."""


def prepare(engine: Engine, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Make the tables in an empty database, or bring an older store up to date.

    Args:
        engine: Whose transactions can write.
        migrations: The steps between versions.

    Raises:
        StoreError: The database cannot be read, holds something else, or was written by a newer
            gardener.
    """
    where = engine.url.render_as_string(hide_password=True)
    try:
        with engine.begin() as connection:
            # Several processes may start on an empty database. SQLite's write lock orders them.
            if connection.dialect.name == "postgresql":
                connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            _prepare(connection, migrations, where)
    except SQLAlchemyError as error:
        raise StoreError(
            f"the job store {where} cannot be used: {one_line(error)}."
            " What to do: see whether its database runs, and is reached from here"
        ) from error


def _prepare(connection: Connection, migrations: Sequence[Migration], where: str) -> None:
    newest = len(migrations) + 1
    present = set(inspect(connection).get_table_names())
    if version.name not in present:
        if present & set(metadata.tables):
            raise StoreError(
                f"{where} has tables of these names, but not of a gardener: "
                f"{', '.join(sorted(present & set(metadata.tables)))}"
            )
        metadata.create_all(connection)
        connection.execute(insert(version).values(version=newest))
        return
    found = connection.execute(select(version.c.version)).scalars().all()
    if len(found) != 1:
        raise StoreError(f"{where}: {version.name} has {len(found)} rows: expected one")
    if found[0] > newest:
        raise StoreError(
            f"{where} is a store of version {found[0]}: expected at most {newest};"
            " it was written by a newer gardener"
        )
    for migrate in migrations[found[0] - 1 :]:
        migrate(connection)
    if found[0] < newest:
        connection.execute(update(version).values(version=newest))
