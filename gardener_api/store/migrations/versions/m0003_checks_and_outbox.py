"""Results of checks, observations to deliver, and who asked for what was written or taken back."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_HAS_NOT_PASSED = sa.text("NOT passed")


def upgrade() -> None:
    """Add the columns and tables."""
    op.add_column("requests", sa.Column("withdrawn_by", sa.Text, nullable=False, server_default=""))
    op.add_column("partitions", sa.Column("requester", sa.Text, nullable=False, server_default=""))
    op.add_column("partitions", sa.Column("job", sa.BigInteger))
    op.create_table(
        "check_results",
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("table", sa.String, primary_key=True),
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("experiment", sa.String, nullable=False),
        sa.Column("datatype", sa.String, nullable=False),
        sa.Column("date", sa.Date, nullable=False),
        sa.Column("passed", sa.Boolean, nullable=False),
        sa.Column("severity", sa.String, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("run_id", sa.String, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
    )
    op.create_index(
        "check_results_failing",
        "check_results",
        ["date", "experiment", "datatype"],
        sqlite_where=_HAS_NOT_PASSED,
        postgresql_where=_HAS_NOT_PASSED,
    )
    op.create_table(
        "outbox",
        sa.Column("number", _NUMBER, primary_key=True),
        sa.Column("key", sa.String, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("holder", sa.String, nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=False),
    )
