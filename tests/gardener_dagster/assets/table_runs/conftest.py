from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from fake_warehouse import FAKES, FakeGcs, FakeTables, FakeWarehouse
from table_dates import Dates

from gardener_api.config import GardenerConfig
from gardener_api.store.store import JobStore
from gardener_dagster.definitions import build_defs
from gardener_dagster.resources import JobStoreResource


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[FakeTables]:
    fake = FAKES[str(tmp_path)] = FakeTables()
    yield fake
    del FAKES[str(tmp_path)]


MakeDates = Callable[..., Dates]


@pytest.fixture
def make_dates(
    config: GardenerConfig,
    store: JobStore,
    store_url: str,
    tables: FakeTables,
    tmp_path: Path,
    instance: dg.DagsterInstance,
) -> MakeDates:
    def make(at_once: int = 4) -> Dates:
        bounds = config.tables.model_copy(update={"dates_at_once": at_once})
        changed = config.model_copy(update={"tables": bounds})
        defs = build_defs(
            changed,
            job_store=JobStoreResource(url=store_url, lease_seconds=3600, max_attempts=2),
            warehouse=FakeWarehouse(project="p", fake=str(tmp_path)),
            gcs=FakeGcs(project="p", parsed_bucket="etl-mlab", fake=str(tmp_path)),
        )
        return Dates(changed, store, defs, tables, instance)

    return make


@pytest.fixture
def dates(make_dates: MakeDates) -> Dates:
    return make_dates()
