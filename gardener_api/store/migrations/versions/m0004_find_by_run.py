"""Jobs and requests are found by their Dagster run.

The status page shows how far each run of the tables is; a run takes back its own requests.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_IS_OF_A_RUN = sa.text("run_id <> ''")


def upgrade() -> None:
    """Add the indexes."""
    op.create_index(
        "jobs_run",
        "jobs",
        ["run_id"],
        sqlite_where=_IS_OF_A_RUN,
        postgresql_where=_IS_OF_A_RUN,
    )
    op.create_index("requests_run", "requests", ["run_id"])
