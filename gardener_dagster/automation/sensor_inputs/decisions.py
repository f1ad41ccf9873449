"""What the sensor ``decisions`` reads in one tick. Which runs follow is ``due_decisions``'s."""

import datetime as dt
from collections.abc import Iterable

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from gardener_api.store.publishing.held import HeldPartition
from gardener_dagster.assets.keys import DECISION_TAG
from gardener_dagster.automation.run_requests import NOT_ENDED
from gardener_dagster.automation.sensor_inputs.dagster_runs import RunFates
from gardener_dagster.planning.due_decisions import DecisionRuns


def decision_runs(
    instance: dg.DagsterInstance, decided: Iterable[HeldPartition], *, now: dt.datetime
) -> dict[int, DecisionRuns]:
    """Return the state of the runs of each decision, by the number of the held partition."""
    fates = RunFates(instance, now=now)
    found = {}
    for held in decided:
        records = instance.get_run_records(RunsFilter(tags={DECISION_TAG: str(held.number)}))
        if records:
            last, *_ = records  # Dagster returns the newest first
            status = last.dagster_run.status
            found[held.number] = DecisionRuns(
                count=len(records),
                in_progress=any(r.dagster_run.status in NOT_ENDED for r in records)
                or fates.will_be_retried(last),
                cancelled=status is DagsterRunStatus.CANCELED,
            )
    return found
