"""How quick Dagster's asset graph is over years of partitions: run by hand, asserts nothing.

    PYTHONPATH=tests/support .venv/bin/python tests/benchmarks/asset_graph.py \
        [--years 5] [--sources 16] [--postgresql]

Every asset of every date is materialized, as Dagster's storage keeps that. Then code server and
webserver start, and the pages of ``history.py --pages`` are opened in Chromium. The first load is
the one that finds out which partitions there are; later ones read what it kept.
"""

import argparse
import datetime as dt
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from dagster import AssetKey, AssetMaterialization, DagsterEventType, DagsterInstance
from dagster._core.events import DagsterEvent, StepMaterializationData
from dagster._core.events.log import EventLogEntry
from dagster_instance import instance_at
from dagster_pages import load_times
from history_report import show
from history_stack import build_stack, describe, settings_of, start_in_order, write_config
from postgres import postgresql_server

from gardener_api.config import GardenerConfig, load_config
from gardener_dagster.assets.keys import parsed_key, table_keys
from gardener_dagster.planning.ranges import ONE_DAY

DATES_PER_RUN = 16
BATCH = 2_000
"""Events that are written at once."""


def fill(instance: DagsterInstance, config: GardenerConfig, dates: list[dt.date]) -> int:
    """Materialize every asset of these dates; return how many partitions that were."""
    count = 0
    for source in config.sources:
        for key in (parsed_key(source), *table_keys(source)):
            events = list(materializations(key, dates))
            for start in range(0, len(events), BATCH):
                instance.event_log_storage.store_event_batch(events[start : start + BATCH])
            count += len(events)
    return count


def materializations(key: AssetKey, dates: list[dt.date]) -> Iterator[EventLogEntry]:
    """The events of an asset, as runs of a range of dates write them."""
    for number, date in enumerate(dates):
        made = AssetMaterialization(
            asset_key=key,
            partition=date.isoformat(),
            metadata={"dagster/row_count": 100_000 + number, "seconds": 31.5, "version": 1},
        )
        yield EventLogEntry(
            error_info=None,
            level="debug",
            user_message="",
            run_id=f"{'-'.join(key.path)}-{number // DATES_PER_RUN}",
            timestamp=time.time(),
            dagster_event=DagsterEvent(
                event_type_value=DagsterEventType.ASSET_MATERIALIZATION.value,
                job_name="__ASSET_JOB",
                event_specific_data=StepMaterializationData(made),
            ),
        )


def main() -> None:
    """Read the options, fill the storage, open the pages."""
    parser = argparse.ArgumentParser(description="Dagster's asset graph over years of partitions.")
    parser.add_argument("--years", type=int, default=5)
    parser.add_argument("--sources", type=int, default=16)
    parser.add_argument("--postgresql", action="store_true", help="for Dagster")
    options = parser.parse_args()
    print(describe(), flush=True)
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gardener-benchmark-")))
        days = 365 * options.years
        first = dt.datetime.now(dt.UTC).date() - days * ONE_DAY
        write_config(home, options.sources, start_date=first)
        server = stack.enter_context(postgresql_server()) if options.postgresql else None
        settings = settings_of(home, server.url if server else "")
        config = load_config(settings.config)
        processes = stack.enter_context(build_stack(settings))
        instance = stack.enter_context(instance_at(home / "dagster"))
        count = fill(instance, config, [first + n * ONE_DAY for n in range(days)])
        database = "PostgreSQL" if server else "SQLite"
        print(f"{options.years} years, {options.sources} sources, {count:,} partitions, {database}")
        start_in_order(processes, "code server", "webserver")
        source = next(source for source in config.sources if source.joined_table)
        show(["page, s", "first", "new, p50", "again, p50"])
        for name, (new, again) in load_times(
            settings.dagster_url,
            raw=f"{source.target_datasets.raw}/{source.datatype}",
            group=source.experiment,
            date=first.isoformat(),
            backfill="",
            folder=home / "pages",
        ):
            cells = [new[0].whole, *(statistics.median(x.whole for x in of) for of in (new, again))]
            show([name, *(f"{cell:.2f}" for cell in cells)])


if __name__ == "__main__":
    main()
