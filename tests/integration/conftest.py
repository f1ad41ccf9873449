"""The whole stack as its own processes, once for all tests of this folder."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import daily_schedule
import pytest
from dagster_instance import instance_at
from stack_client import StackClient
from waiting import until

from gardener_api.config import load_config
from gardener_api.store import JobStore
from gardener_dagster.local.clients import bigquery_client
from gardener_dagster.local.dagster_client import DagsterClient
from gardener_dagster.local.samples import make_samples
from gardener_dagster.local.stack import (
    PREFERRED_PORTS,
    StackSettings,
    choose_ports,
    running_stack,
)
from gardener_dagster.local.upload import upload_archives

ROOT = Path(__file__).parent.parent.parent

CONFIG = """
start_date: 2024-01-01
tracker: {timeout: 10s, max_attempts: 3}
monitor: {polling_interval: 2s}
late_archives: {interval: 2s}
history: {enabled: false, recent_days: 2, jobs_per_run: 1}
sources:
- {bucket: archive-mlab, experiment: ndt, datatype: annotation2, daily_only: true}
- {bucket: archive-mlab, experiment: ndt, datatype: ndt7, target_datasets: {join: ndt}}
"""

GOOD = tuple(dt.date(2024, 3, day) for day in (1, 2))
"""Dates of sample archives."""
WITH_A_BAD_ONE = tuple(dt.date(2024, 5, day) for day in (1, 2))
"""The archives of the second are none."""
BAD = WITH_A_BAD_ONE[1]


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackClient]:
    home = tmp_path_factory.mktemp("stack")
    (home / "gardener.yml").write_text(CONFIG, encoding="utf-8")
    config = load_config(home / "gardener.yml")
    settings = StackSettings(
        home=home,
        config=home / "gardener.yml",
        dagster_yaml=ROOT / "dagster.yaml",
        ports=choose_ports(dict.fromkeys(PREFERRED_PORTS, 0)),  # a stack of a person's may run
    )
    archives = home / "archives"
    expected = make_samples(archives, GOOD) | make_samples(archives, WITH_A_BAD_ONE)
    for archive in (archives / f"ndt/ndt7/{BAD:%Y/%m/%d}").iterdir():
        archive.write_bytes(b"this is no archive")
    with running_stack(settings) as processes:
        with instance_at(home / "dagster") as instance:
            until(lambda: daily_schedule.is_known(instance), "no daemon has seen the schedule")
            daily_schedule.turn_off(instance)
        upload_archives(archives, settings.storage_url, config, [*GOOD, *WITH_A_BAD_ONE])
        store = JobStore.open(
            settings.database_url,
            lease=config.tracker.timeout,
            max_attempts=config.tracker.max_attempts,
        )
        with bigquery_client(settings.bigquery_url) as client:
            yield StackClient(
                settings=settings,
                config=config,
                processes=processes,
                store=store,
                dagster=DagsterClient(url=settings.dagster_url),
                bigquery=client,
                expected=expected,
            )
        store.close()


@pytest.fixture(scope="session")
def backfills(stack: StackClient) -> dict[str, str]:
    """Two whole-chain backfills from an empty warehouse, started together; ended, with status."""
    chain = [
        [*path]
        for source in stack.config.sources
        for path in (
            ("parsed", source.experiment, source.datatype),
            (source.target_datasets.tmp, source.datatype),
            (source.target_datasets.raw, source.datatype),
        )
    ]
    chain.append(["ndt", "ndt7"])
    ids = {
        "good": stack.dagster.backfill(chain, GOOD),
        "bad": stack.dagster.backfill(chain, WITH_A_BAD_ONE),
    }
    return {name: stack.wait_for_backfill(backfill) for name, backfill in ids.items()}
