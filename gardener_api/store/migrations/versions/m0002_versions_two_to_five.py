"""What the versions 2 to 5 added, before the store was migrated by alembic.

Stores of these versions exist, and in development version 2 was three different things. So each
table, column and index is added only where it is missing.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_IS_OF_PARSERS = sa.text("state IN ('init', 'leaseExpired', 'parseError')")


def upgrade() -> None:
    """Add what is missing."""
    op.create_table(
        "holds",
        sa.Column("table", sa.String, primary_key=True),
        sa.Column("date", sa.Date, primary_key=True),
        sa.Column("run_id", sa.String, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        if_not_exists=True,
    )
    op.create_index(
        "jobs_date",
        "jobs",
        [sa.text("date DESC"), "rank", sa.text("number DESC")],
        if_not_exists=True,
    )
    op.create_index(
        "jobs_source",
        "jobs",
        ["experiment", "datatype", sa.text("date DESC"), sa.text("number DESC")],
        if_not_exists=True,
    )
    op.create_index(
        "events_of_parsers",
        "events",
        ["state", "at"],
        sqlite_where=_IS_OF_PARSERS,
        postgresql_where=_IS_OF_PARSERS,
        if_not_exists=True,
    )
    columns = sa.inspect(op.get_bind()).get_columns("operations")
    if "objects" not in {column["name"] for column in columns}:
        op.add_column("operations", sa.Column("objects", sa.BigInteger))
    op.create_index(
        "partitions_day_before", "partitions", ["table", "day_before"], if_not_exists=True
    )
