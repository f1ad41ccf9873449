"""The store's tables as this gardener reads and writes them.

``migrations`` creates them: a change of a table here needs a migration there.
"""

import datetime as dt

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
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
    text,
)

from gardener_api.jobs.job import ENDED, LEASE_EXPIRED, PARSE_ERROR, JobState

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)

NEWEST = "0006"
"""The version of the store that this gardener reads and writes: alembic's newest revision."""


class StoreError(RuntimeError):
    """The store cannot be used: it is missing, not a store, damaged, or of another version."""


class UtcTime(TypeDecorator[dt.datetime]):
    """An aware time, stored as microseconds since 1970: sortable, the same on every database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: Dialect) -> int | None:
        """Convert an aware time to a number; a naive one raises ``TypeError``."""
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> dt.datetime | None:
        """Convert the number to a time in UTC."""
        return None if value is None else _EPOCH + value * _MICROSECOND


# Only INTEGER can be SQLite's row id.
_Number = BigInteger().with_variant(Integer, "sqlite")


def _states(states: frozenset[str]) -> str:
    return ", ".join(f"'{state}'" for state in sorted(states))


# Literals, not parameters: databases use a partial index only if the query has its constants.
IS_OPEN = text(f"state NOT IN ({_states(ENDED)})")
IS_UNREPORTED = text("parsed IS NOT NULL AND announced IS NULL AND state <> 'withdrawn'")
IS_OF_PARSERS = text(
    f"state IN ({_states(frozenset({JobState.INIT, LEASE_EXPIRED, PARSE_ERROR}))})"
)

IS_OF_A_RUN = text("run_id <> ''")
HAS_NOT_PASSED = text("NOT passed")
IS_UNSETTLED = text("settled IS NULL")

metadata = MetaData()

# Alembic's own; exactly one row.
version = Table("alembic_version", metadata, Column("version_num", String(32), primary_key=True))

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
    Column("archive_bytes", BigInteger),
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
    # Not fields of ``Job``.
    Column("key", String, nullable=False),
    Column("wire_id", String, nullable=False),
    Column("announced", UtcTime, key="reported"),  # when its parse was first reported
)
Index("jobs_one_generation", jobs.c.key, jobs.c.generation, unique=True)
Index("jobs_wire_id", jobs.c.wire_id, unique=True)
Index("jobs_one_open", jobs.c.key, unique=True, sqlite_where=IS_OPEN, postgresql_where=IS_OPEN)
# One index for all queries by state, in handout order: with a second one, SQLite would choose that
# and have to sort.
Index("jobs_order", jobs.c.state, jobs.c.priority, jobs.c.date, jobs.c.rank, jobs.c.number)
Index("jobs_entered", jobs.c.entered, jobs.c.number)
Index("jobs_run", jobs.c.run_id, sqlite_where=IS_OF_A_RUN, postgresql_where=IS_OF_A_RUN)
# In the orders of the status page's list; the columns of these two indexes never change.
Index("jobs_date", jobs.c.date.desc(), jobs.c.rank, jobs.c.number.desc())
Index(
    "jobs_source",
    jobs.c.experiment,
    jobs.c.datatype,
    jobs.c.date.desc(),
    jobs.c.number.desc(),
)
Index(
    "jobs_unannounced",
    jobs.c.number,
    sqlite_where=IS_UNREPORTED,
    postgresql_where=IS_UNREPORTED,
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
    Column("withdrawn_by", Text, nullable=False, server_default=""),  # who withdrew it, and why
)
Index("requests_run", requests.c.run_id)
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
# Handouts and lost attempts: one event in ten.
Index(
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
    Column("version", Integer, nullable=False),  # 0: never written, only a join of it was attempted
    Column("rows", BigInteger, nullable=False),
    Column("run_id", String, nullable=False),
    Column("requester", Text, nullable=False, server_default=""),  # who asked for that run
    Column("job", BigInteger),  # number of the parse job whose rows it holds; NULL: not known
    Column("made", UtcTime),
    # Only of a joined table: the input versions of its last write, and of the last attempt.
    Column("input_raw", Integer),
    Column("input_annotations", Integer),
    Column("input_before", Integer),
    Column("attempted_raw", Integer),
    Column("attempted_annotations", Integer),
    Column("attempted_before", Integer),
)
Index("partitions_day_before", partitions.c.table, partitions.c.day_before)

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
    Column("objects", BigInteger),  # number that a load read; NULL for other operations
)
Index("operations_key", operations.c.key, operations.c.number)

partition_locks = Table(
    "holds",  # its older name, kept in the database
    metadata,
    Column("table", String, primary_key=True),  # "<dataset>.<table>"
    Column("date", Date, primary_key=True),
    Column("run_id", String, nullable=False),
    Column("since", UtcTime, nullable=False),
)

check_results = Table(
    "check_results",
    metadata,
    Column("key", String, primary_key=True),  # of the job whose date and datatype was checked
    Column("table", String, primary_key=True),  # "<dataset>.<table>"
    Column("name", String, primary_key=True),
    # The key's parts, for the status page's grid.
    Column("experiment", String, nullable=False),
    Column("datatype", String, nullable=False),
    Column("date", Date, nullable=False),
    Column("passed", Boolean, nullable=False),
    Column("severity", String, nullable=False),  # "warn" or "error"
    Column("description", Text, nullable=False),
    Column("metadata", Text, nullable=False),  # JSON
    Column("run_id", String, nullable=False),
    Column("at", UtcTime, nullable=False),
)
Index(
    "check_results_failing",
    check_results.c.date,
    check_results.c.experiment,
    check_results.c.datatype,
    sqlite_where=HAS_NOT_PASSED,
    postgresql_where=HAS_NOT_PASSED,
)

# Partitions that audits held back, with people's decisions; never deleted.
held_partitions = Table(
    "held_partitions",
    metadata,
    Column("number", _Number, primary_key=True),
    Column("key", String, nullable=False),  # of the job of that date and datatype
    Column("experiment", String, nullable=False),
    Column("datatype", String, nullable=False),
    Column("date", Date, nullable=False),
    Column("table", String, nullable=False),  # "<dataset>.<table>" that keeps its rows
    Column("staged", String, nullable=False),  # identifies the audited rows
    Column("job", BigInteger),  # number of the parse job; NULL: not known
    Column("findings", Text, nullable=False),  # JSON
    Column("run_id", String, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("decision", String),  # "accept" or "reject"; NULL: nobody has decided
    Column("audits", Text, nullable=False, server_default=""),  # accepted; space-separated
    Column("decided_by", Text, nullable=False, server_default=""),
    Column("reason", Text, nullable=False, server_default=""),
    Column("decided", UtcTime),
    Column("outcome", String),  # "published", "rejected" or "superseded"; NULL: not settled
    Column("settled", UtcTime),
)
Index("held_partitions_key", held_partitions.c.key, held_partitions.c.number)
Index(
    "held_partitions_unsettled",
    held_partitions.c.table,
    held_partitions.c.date,
    sqlite_where=IS_UNSETTLED,
    postgresql_where=IS_UNSETTLED,
)

# What each version of a published partition changed; never deleted.
partition_versions = Table(
    "partition_versions",
    metadata,
    Column("table", String, primary_key=True),  # "<dataset>.<table>"
    Column("date", Date, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("run_id", String, nullable=False),
    Column("made", UtcTime, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("rows_before", BigInteger),
    Column("ids_added", BigInteger),
    Column("ids_removed", BigInteger),
    Column("ids_kept", BigInteger),
    Column("duplicates", BigInteger),
    Column("annotated", BigInteger),
    Column("parser_versions", Text, nullable=False, server_default=""),
)
VERSION_SEPARATOR = ", "  # between the parser versions

# Targets of unfinished tables-only backfills, for their progress: they request no jobs.
tables_backfills = Table(
    "tables_backfills",
    metadata,
    Column("backfill_id", String, primary_key=True),
    # "<dataset>.<table>": the last one of the source that the backfill makes
    Column("table", String, primary_key=True),
    Column("date", Date, primary_key=True),
    Column("experiment", String, nullable=False),
    Column("datatype", String, nullable=False),
    Column("began", UtcTime, nullable=False),
)

# Observations that Dagster does not have yet; a row is removed when it is delivered.
outbox = Table(
    "outbox",
    metadata,
    Column("number", _Number, primary_key=True),  # the order of delivery
    Column("key", String, nullable=False),  # of the job
    Column("at", UtcTime, nullable=False),
    Column("description", Text, nullable=False),
    Column("metadata", Text, nullable=False),  # JSON
)

# Leases on tasks that only one process does at a time.
leases = Table(
    "leases",
    metadata,
    Column("name", String, primary_key=True),
    Column("holder", String, nullable=False),
    Column("expires", UtcTime, nullable=False),
)
