"""Dagster instances, as a test's own process has them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from dagster import DagsterInstance


@contextmanager
def instance_at(home: Path) -> Iterator[DagsterInstance]:
    """The instance in that ``DAGSTER_HOME``; its ``dagster.yaml`` asks the environment for it."""
    with mock.patch.dict(os.environ, DAGSTER_HOME=str(home)), DagsterInstance.get() as instance:
        yield instance
