"""Dagster instances, as a test's own process has them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from dagster import DagsterInstance

STORAGE = """
storage:
  custom:
    module: gardener_dagster.event_log
    class: GardenerStorage
    config: {base_dir: {env: DAGSTER_HOME}}
telemetry: {enabled: false}
"""


@contextmanager
def instance_in(home: Path) -> Iterator[DagsterInstance]:
    """An instance that is nothing but the gardener's storage, in a folder of its own."""
    (home / "dagster.yaml").write_text(STORAGE)
    with instance_at(home) as instance:
        yield instance


@contextmanager
def instance_at(home: Path) -> Iterator[DagsterInstance]:
    """The instance in that ``DAGSTER_HOME``; its ``dagster.yaml`` asks the environment for it."""
    with mock.patch.dict(os.environ, DAGSTER_HOME=str(home)), DagsterInstance.get() as instance:
        yield instance
