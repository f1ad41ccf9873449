"""``python -m gardener_dagster.local.bigquery``: the server as a process."""

import argparse
import sys
from pathlib import Path

import uvicorn

from gardener_dagster.local.bigquery.database import DatabaseInUse
from gardener_dagster.local.bigquery.server import create_app


def main() -> int:
    """Runs the server until it is told to stop."""
    parser = argparse.ArgumentParser(
        prog="python -m gardener_dagster.local.bigquery",
        description="BigQuery's REST API on this machine. It checks no credentials.",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9050, help="0: any free one")
    parser.add_argument("--data", type=Path, required=True, help="folder of everything it keeps")
    # A day of a million rows is joined within this; with half of it, DuckDB gives up.
    parser.add_argument("--memory-limit", default="1GB", help="of DuckDB (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of DuckDB (%(default)s)")
    parser.add_argument("--faults", action="store_true", help="tests may make things go wrong")
    options = parser.parse_args()
    try:
        app = create_app(
            options.data,
            memory_limit=options.memory_limit,
            threads=options.threads,
            faults=options.faults,
        )
    except DatabaseInUse as error:
        print(error, file=sys.stderr)
        return 1
    uvicorn.run(
        app,
        host=options.host,
        port=options.port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
