"""The plan of a backfill has the bytes of archives, the status page backfills of tables alone."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the column and the table; of jobs that were asked for before, the bytes are not known."""
    op.add_column("jobs", sa.Column("archive_bytes", sa.BigInteger))
    op.create_table(
        "tables_backfills",
        sa.Column("backfill_id", sa.String, primary_key=True),
        sa.Column("table", sa.String, primary_key=True),
        sa.Column("date", sa.Date, primary_key=True),
        sa.Column("experiment", sa.String, nullable=False),
        sa.Column("datatype", sa.String, nullable=False),
        sa.Column("began", sa.BigInteger, nullable=False),
    )
