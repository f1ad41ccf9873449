import dagster as dg
import pytest
from dagster import DagsterRunStatus
from ticked_sensors import DAY, NDT7, NOW, Gardener

from gardener_api.store.publishing.held import Decision, Finding, Outcome
from gardener_dagster.assets.keys import DECISION_TAG
from gardener_dagster.planning.due_tables import job_key
from gardener_dagster.planning.lost_tables import MOST_LOST


@pytest.fixture
def decided(gardener: Gardener) -> int:
    """A held partition that a person accepted; its number."""
    store, key = gardener.store, job_key(gardener.config.source(NDT7), DAY)
    finding = Finding(audit="rows_of_previous", description="7 rows, 10 before")
    number = store.held.record(
        key, "raw_ndt.ndt7", [finding], staged="load 1", job=1, run_id="r", now=NOW
    )
    assert gardener.runs("decisions") == []
    store.held.decide(number, Decision.ACCEPT, by="ada", now=NOW)
    return number


def ended(gardener: Gardener, number: int, status: DagsterRunStatus) -> None:
    tags = {DECISION_TAG: str(number), "dagster/partition": DAY.isoformat()}
    run = gardener.instance.create_run_for_job(_empty_job, tags=tags, status=status)
    assert run is not None


@dg.job
def _empty_job() -> None:
    """Nothing."""


def test_a_decision_is_carried_out_by_a_run_of_its_table(gardener: Gardener, decided: int) -> None:
    [run] = gardener.tick("decisions").run_requests or ()
    assert (run.run_key, run.partition_key) == (f"decision~{decided}~0", DAY.isoformat())
    assert [key.to_user_string() for key in run.asset_selection or ()] == ["raw_ndt/ndt7"]
    assert run.tags[DECISION_TAG] == str(decided)
    gardener.store.held.settle("raw_ndt.ndt7", DAY, Outcome.PUBLISHED, staged="load 1", now=NOW)
    assert gardener.runs("decisions") == []


def test_a_decision_whose_run_fails_is_tried_again_a_few_times(
    gardener: Gardener, decided: int
) -> None:
    for count in range(MOST_LOST):
        [run] = gardener.tick("decisions").run_requests or ()
        assert run.run_key == f"decision~{decided}~{count}"
        ended(gardener, decided, DagsterRunStatus.FAILURE)
    assert gardener.runs("decisions") == []


@pytest.mark.parametrize("status", [DagsterRunStatus.STARTED, DagsterRunStatus.CANCELED])
def test_a_decision_with_a_run_in_progress_or_cancelled_is_left_alone(
    gardener: Gardener, decided: int, status: DagsterRunStatus
) -> None:
    ended(gardener, decided, status)
    assert gardener.runs("decisions") == []
