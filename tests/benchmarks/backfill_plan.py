"""How long `gardener backfill --plan` takes for a year of 16 sources: run by hand, asserts nothing.

    PYTHONPATH=tests/support:. .venv/bin/python tests/benchmarks/backfill_plan.py \
        [--postgresql] [--jobs 200000]

The store is the one of the browser tests, with the operations, the partitions and the parser
versions of a year besides. The command runs as a process of its own, as a person starts it.
"""

import argparse
import contextlib
import datetime as dt
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from filled import FILLED_NOW, fill, filled_config
from postgres import postgresql
from sqlalchemy import insert

from gardener_api.config import GardenerConfig
from gardener_api.store import schema
from gardener_api.store.engine import open_engine, writing
from gardener_api.store.store import JobStore
from gardener_dagster.planning.due_tables import job_key

LAST = FILLED_NOW.date() - dt.timedelta(days=32)
DATES = [LAST - dt.timedelta(days=back) for back in range(364, -1, -1)]
OPERATIONS = ("load", "dedup", "copy", "delete", "join")
TIMES = 3  # that each date was made


def main() -> None:
    """Print what the command prints, and how long it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--postgresql", action="store_true", help="a server of its own")
    parser.add_argument("--jobs", type=int, default=200_000)
    options = parser.parse_args()
    with database(postgres=options.postgresql) as (url, folder):
        config = filled_config()
        JobStore.open(url, lease=config.tracker.timeout, max_attempts=3).close()
        fill(url, config, jobs=options.jobs)
        fill_tables(url, config)
        values = config.model_dump_json(include={"start_date", "sources"})  # JSON is YAML
        (folder / "gardener.yml").write_text(values, encoding="utf-8")
        for more in ([], ["--missing"], ["--older-than", "v2.7.0"]):
            begun = time.monotonic()
            subprocess.run(
                [sys.executable, "-m", "gardener_dagster.cli.main", "backfill", "--plan",
                 "--dates", f"{DATES[0]}:{DATES[-1]}", *more],
                env=os.environ | {"GARDENER_DATABASE_URL": url,
                                  "GARDENER_CONFIG": str(folder / "gardener.yml")},
                check=True,
            )  # fmt: skip
            print(f"--plan {' '.join(more)}: {time.monotonic() - begun:.2f} s", flush=True)


@contextlib.contextmanager
def database(*, postgres: bool) -> Iterator[tuple[str, Path]]:
    """The URL of an empty database, and a folder."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        url = f"sqlite:///{folder}/gardener.db"
        if postgres:
            url = stack.enter_context(postgresql("fsync=off"))
        yield url, Path(folder)


def fill_tables(url: str, config: GardenerConfig) -> None:
    """What was written of each date of the year, how often, and by which parser."""
    engine = open_engine(url)
    with writing(engine).begin() as connection:
        for source in config.sources:
            tables = [source.raw_table, *([source.joined_table] if source.joined_table else [])]
            joins = 5 if source.joined_table else 4
            connection.execute(
                insert(schema.operations),
                [{"key": str(job_key(source, date)), "table": source.raw_table,
                  "operation": operation, "run_id": "r", "bq_job_ids": "b", "rows": 1000,
                  "bytes": 10**9, "slot_seconds": 100.0, "bytes_billed": 10**9, "seconds": 60.0,
                  "at": FILLED_NOW, "objects": None}
                 for _ in range(TIMES) for date in DATES for operation in OPERATIONS[:joins]],
            )  # fmt: skip
            connection.execute(
                insert(schema.partitions),
                [{"table": table, "date": date, "day_before": date - dt.timedelta(days=1),
                  "version": TIMES, "rows": 1000, "run_id": "r", "made": FILLED_NOW}
                 for table in tables for date in DATES],
            )  # fmt: skip
            connection.execute(
                insert(schema.check_results),
                [{"key": str(job_key(source, date)), "table": source.raw_table,
                  "name": "one_parser_version", "experiment": source.experiment,
                  "datatype": source.datatype, "date": date, "passed": True, "severity": "warn",
                  "description": "", "metadata": f'{{"parser versions": "{version}: 1,000 rows"}}',
                  "run_id": "r", "at": FILLED_NOW}
                 for date in DATES for version in ["v2.6.1" if date.month < 3 else "v2.7.0"]],
            )  # fmt: skip
    engine.dispose()


if __name__ == "__main__":
    main()
