"""``python -m gardener_dagster.local.bigquery``: the server as a process."""

import argparse
import datetime as dt
from pathlib import Path

import uvicorn

from gardener_dagster.local.bigquery.catalog import Catalog
from gardener_dagster.local.bigquery.server import create_app


def main() -> None:
    """Runs the server until it is told to stop."""
    parser = argparse.ArgumentParser(description="BigQuery's REST API on DuckDB.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9050)
    parser.add_argument("--data", type=Path, required=True, help="folder of its data")
    parser.add_argument("--memory-limit", default="512MB", help="of DuckDB")
    parser.add_argument("--faults", action="store_true", help="let tests inject faults")
    options = parser.parse_args()
    catalog = Catalog(
        options.data, now=lambda: dt.datetime.now(dt.UTC), memory_limit=options.memory_limit
    )
    app = create_app(catalog, faults_enabled=options.faults)
    uvicorn.run(app, host=options.host, port=options.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
