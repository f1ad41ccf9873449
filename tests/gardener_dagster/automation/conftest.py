import dagster as dg
import pytest
from ticked_sensors import Gardener

from gardener_api.config import GardenerConfig
from gardener_api.store.store import JobStore


@pytest.fixture
def gardener(
    config: GardenerConfig,
    store: JobStore,
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
) -> Gardener:
    return Gardener(config, store, defs, instance)
