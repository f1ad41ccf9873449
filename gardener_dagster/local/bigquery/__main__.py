"""``python -m gardener_dagster.local.bigquery``: run the server as a process."""

import argparse
import sys
from pathlib import Path

import uvicorn

from gardener_dagster.local.bigquery.catalog.database import DatabaseInUse
from gardener_dagster.local.bigquery.server import create_app


def main() -> int:
    """Run the server until a signal stops it.

    Returns:
        The exit code; 1 if another process uses the data folder.
    """
    parser = argparse.ArgumentParser(
        prog="python -m gardener_dagster.local.bigquery",
        description="BigQuery's REST API on this machine. It checks no credentials.",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9050, help="0: any free port")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds all data")
    parser.add_argument("--faults", action="store_true", help="accept faults at /faults")
    options = parser.parse_args()
    try:
        app = create_app(options.data, faults=options.faults)
    except DatabaseInUse as error:
        print(error, file=sys.stderr)
        return 1
    uvicorn.run(
        app,
        host=options.host,
        port=options.port,
        ws="none",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
