"""Stacks to test with: their configuration, and how a test reaches one that runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import daily_schedule
from dagster_instance import instance_at
from stack_client import StackClient
from waiting import until

from gardener_api.config import load_config
from gardener_api.store.store import JobStore
from gardener_dagster.dagster_client import DagsterClient
from gardener_dagster.local.clients import bigquery_client
from gardener_dagster.local.stack.parts import StackSettings, running_stack
from gardener_dagster.local.stack.ports import PREFERRED_PORTS, choose_ports

ROOT = Path(__file__).parent.parent.parent

CONFIG = """
start_date: 2024-01-01
tracker: {timeout: 10s, max_attempts: 3}
monitor: {polling_interval: 2s}
late_archives: {interval: 2s}
tables: {gather: 5s}
history: {enabled: false, recent_days: 2, jobs_per_run: 1}
sources:
- {bucket: archive-mlab, experiment: ndt, datatype: annotation2, daily_only: true}
- {bucket: archive-mlab, experiment: ndt, datatype: ndt7, target_datasets: {join: ndt}}
"""


def new_stack(home: Path, config: str = CONFIG, *, postgresql: str = "") -> StackSettings:
    """Settings of a stack in an empty folder, on free ports: a person's own stack may run.

    Args:
        home: The folder.
        config: The gardener's configuration.
        postgresql: URL of the database that Dagster and the job store share; empty: SQLite files.
    """
    (home / "gardener.yml").write_text(config, encoding="utf-8")
    return StackSettings(
        home=home,
        config=home / "gardener.yml",
        dagster_yaml=ROOT / "dagster.yaml",
        ports=choose_ports(dict.fromkeys(PREFERRED_PORTS, 0)),
        postgresql=postgresql,
    )


@contextmanager
def started(settings: StackSettings) -> Iterator[StackClient]:
    """Starts a stack, with the schedule *daily* off; ends it on the way out."""
    config = load_config(settings.config)
    with running_stack(settings) as processes:
        with instance_at(settings.home / "dagster") as instance:
            until(lambda: daily_schedule.is_known(instance), "no daemon has seen the schedule")
            daily_schedule.turn_off(instance)
        store = JobStore.open(
            settings.database_url,
            lease=config.tracker.timeout,
            max_attempts=config.tracker.max_attempts,
        )
        try:
            with bigquery_client(settings.bigquery_url) as client:
                yield StackClient(
                    settings=settings,
                    config=config,
                    processes=processes,
                    store=store,
                    dagster=DagsterClient(url=settings.dagster_url),
                    bigquery=client,
                    expected={},
                )
        finally:
            store.close()
