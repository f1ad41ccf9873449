"""The tables of the first version."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_IS_OPEN = sa.text("state NOT IN ('complete', 'failed', 'withdrawn')")
_IS_UNANNOUNCED = sa.text("parsed IS NOT NULL AND announced IS NULL AND state <> 'withdrawn'")


def upgrade() -> None:
    """Create the tables in an empty database."""
    op.create_table(
        "jobs",
        sa.Column("number", _NUMBER, primary_key=True),
        sa.Column("bucket", sa.String, nullable=False),
        sa.Column("experiment", sa.String, nullable=False),
        sa.Column("datatype", sa.String, nullable=False),
        sa.Column("date", sa.Date, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("priority", sa.SmallInteger, nullable=False),
        sa.Column("rank", sa.Integer, nullable=False),
        sa.Column("daily", sa.Boolean, nullable=False),
        sa.Column("filter", sa.Text, nullable=False),
        sa.Column("tmp", sa.String, nullable=False),
        sa.Column("raw", sa.String, nullable=False),
        sa.Column("join", sa.String, nullable=False),
        sa.Column("archives", sa.Integer),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("failed_in", sa.String),
        sa.Column("parser", sa.String, nullable=False),
        sa.Column("run_id", sa.String, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("entered", sa.BigInteger, nullable=False),
        sa.Column("leased", sa.BigInteger),
        sa.Column("lease_expires", sa.BigInteger),
        sa.Column("updated", sa.BigInteger),
        sa.Column("parsed", sa.BigInteger),
        sa.Column("ended", sa.BigInteger),
        sa.Column("key", sa.String, nullable=False),
        sa.Column("wire_id", sa.String, nullable=False),
        sa.Column("announced", sa.BigInteger),
    )
    op.create_index("jobs_one_generation", "jobs", ["key", "generation"], unique=True)
    op.create_index("jobs_wire_id", "jobs", ["wire_id"], unique=True)
    op.create_index(
        "jobs_one_open",
        "jobs",
        ["key"],
        unique=True,
        sqlite_where=_IS_OPEN,
        postgresql_where=_IS_OPEN,
    )
    op.create_index("jobs_order", "jobs", ["state", "priority", "date", "rank", "number"])
    op.create_index("jobs_entered", "jobs", ["entered", "number"])
    op.create_index(
        "jobs_unannounced",
        "jobs",
        ["number"],
        sqlite_where=_IS_UNANNOUNCED,
        postgresql_where=_IS_UNANNOUNCED,
    )
    op.create_table(
        "requests",
        sa.Column("job", _NUMBER, sa.ForeignKey("jobs.number"), primary_key=True),
        sa.Column("requester", sa.String, primary_key=True),
        sa.Column("run_id", sa.String, nullable=False),
        sa.Column("backfill_id", sa.String),
        sa.Column("covers_tables", sa.Boolean, nullable=False),
        sa.Column("asked", sa.BigInteger, nullable=False),
        sa.Column("reported", sa.BigInteger),
        sa.Column("withdrawn", sa.BigInteger),
    )
    op.create_index("requests_requester", "requests", ["requester", "reported", "withdrawn"])
    op.create_table(
        "events",
        sa.Column("number", _NUMBER, primary_key=True),
        sa.Column("job", _NUMBER, sa.ForeignKey("jobs.number"), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("left", sa.String, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
    )
    op.create_index("events_job", "events", ["job", "number"])
    op.create_index("events_state", "events", ["state", "job"])
    op.create_table(
        "partitions",
        sa.Column("table", sa.String, primary_key=True),
        sa.Column("date", sa.Date, primary_key=True),
        sa.Column("day_before", sa.Date, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("run_id", sa.String, nullable=False),
        sa.Column("made", sa.BigInteger),
        sa.Column("input_raw", sa.Integer),
        sa.Column("input_annotations", sa.Integer),
        sa.Column("input_before", sa.Integer),
        sa.Column("attempted_raw", sa.Integer),
        sa.Column("attempted_annotations", sa.Integer),
        sa.Column("attempted_before", sa.Integer),
    )
    op.create_table(
        "operations",
        sa.Column("number", _NUMBER, primary_key=True),
        sa.Column("key", sa.String, nullable=False),
        sa.Column("table", sa.String, nullable=False),
        sa.Column("operation", sa.String, nullable=False),
        sa.Column("run_id", sa.String, nullable=False),
        sa.Column("bq_job_ids", sa.Text, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("slot_seconds", sa.Float, nullable=False),
        sa.Column("bytes_billed", sa.BigInteger, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
    )
    op.create_index("operations_key", "operations", ["key", "number"])
