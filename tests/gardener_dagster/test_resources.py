"""The job store as steps and sensors get it, where its database is away."""

from pathlib import Path

import dagster as dg
import pytest

from gardener_api.store.schema import StoreError
from gardener_api.store.store import JobStore
from gardener_dagster.resources import JobStoreResource, JobStoreUnavailable, store_needed


@pytest.fixture
def away(tmp_path: Path) -> JobStoreResource:
    """A store whose PostgreSQL does not run."""
    url = f"postgresql://gardener@/postgres?host={tmp_path}"
    return JobStoreResource(url=url, lease_seconds=1, max_attempts=1)


def test_a_sensors_error_begins_with_what_is_wrong(
    away: JobStoreResource, instance: dg.DagsterInstance
) -> None:
    @dg.sensor(job_name="none")
    def asking(job_store: dg.ResourceParam[JobStore]) -> None:
        """Is not reached."""

    with (
        dg.build_sensor_context(instance, resources={"job_store": away}) as context,
        pytest.raises(JobStoreUnavailable, match=r"^the job store .* cannot be used: .*What to do"),
    ):
        asking(context)


def test_a_step_without_the_store_fails_with_what_to_do() -> None:
    said = "^the store is away, then re-execute the run from its failure"
    with pytest.raises(dg.Failure, match=said), store_needed():
        raise StoreError("the store is away")
