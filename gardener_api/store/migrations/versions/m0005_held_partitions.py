"""Partitions that audits held back, with people's decisions, and what each version changed."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_IS_UNSETTLED = sa.text("settled IS NULL")


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "held_partitions",
        sa.Column("number", _NUMBER, primary_key=True),
        sa.Column("key", sa.String, nullable=False),
        sa.Column("experiment", sa.String, nullable=False),
        sa.Column("datatype", sa.String, nullable=False),
        sa.Column("date", sa.Date, nullable=False),
        sa.Column("table", sa.String, nullable=False),
        sa.Column("staged", sa.String, nullable=False),
        sa.Column("job", sa.BigInteger),
        sa.Column("findings", sa.Text, nullable=False),
        sa.Column("run_id", sa.String, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("decision", sa.String),
        sa.Column("audits", sa.Text, nullable=False, server_default=""),
        sa.Column("decided_by", sa.Text, nullable=False, server_default=""),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
        sa.Column("decided", sa.BigInteger),
        sa.Column("outcome", sa.String),
        sa.Column("settled", sa.BigInteger),
    )
    op.create_index("held_partitions_key", "held_partitions", ["key", "number"])
    op.create_index(
        "held_partitions_unsettled",
        "held_partitions",
        ["table", "date"],
        sqlite_where=_IS_UNSETTLED,
        postgresql_where=_IS_UNSETTLED,
    )
    op.create_table(
        "partition_versions",
        sa.Column("table", sa.String, primary_key=True),
        sa.Column("date", sa.Date, primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("run_id", sa.String, nullable=False),
        sa.Column("made", sa.BigInteger, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("rows_before", sa.BigInteger),
        sa.Column("ids_added", sa.BigInteger),
        sa.Column("ids_removed", sa.BigInteger),
        sa.Column("ids_kept", sa.BigInteger),
        sa.Column("duplicates", sa.BigInteger),
        sa.Column("annotated", sa.BigInteger),
        sa.Column("parser_versions", sa.Text, nullable=False, server_default=""),
    )
