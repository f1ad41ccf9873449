"""What the sensors read of Dagster's runs: which partitions they make, and what became of them."""

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import dagster as dg
from dagster import DagsterRunStatus, RunRecord, RunsFilter

from gardener_dagster.assets.keys import BACKFILL_TAG
from gardener_dagster.automation.run_requests import ENDED_BADLY, NOT_ENDED, dates_of
from gardener_dagster.dagster_internals import BackfillState, backfill_state

SENSOR_TAG = "dagster/sensor_name"
AUTO_RETRY_TAG = "dagster/auto_retry_run_id"
"""Set by Dagster on a run that it has retried: the run that repeats it."""

RETRY_TIMEOUT = dt.timedelta(minutes=10)
"""How long a failed run may wait for the retry that Dagster announced. It takes seconds; where it
never comes, since the daemon could not launch it, the run is lost."""

RUNS_READ = 500
"""Ended runs that are looked at in one tick, the newest first."""

_ALL_ASSETS = "__ASSET_JOB"
"""How Dagster names the job of a run that a person or a backfill launches for assets."""


def unended_runs(instance: dg.DagsterInstance) -> Sequence[dg.DagsterRun]:
    """Return the runs that are queued, starting, started or being cancelled."""
    return instance.get_runs(RunsFilter(statuses=NOT_ENDED))


def started_by(
    runs: Iterable[dg.DagsterRun], sensor: str, names: Mapping[dg.AssetKey, str]
) -> Counter[str]:
    """Count the runs that a sensor started, by what they make.

    Args:
        runs: Runs, started by anybody.
        sensor: The sensor.
        names: What to call the assets; others are left out.
    """
    theirs = [run for run in runs if run.tags.get(SENSOR_TAG) == sensor]
    made = (key for run in theirs for key in run.asset_selection or ())
    return Counter(names[key] for key in made if key in names)


def covered(
    runs: Iterable[dg.DagsterRun], names: Mapping[dg.AssetKey, str]
) -> Iterator[tuple[str, dt.date]]:
    """Yield which dates of which assets the runs make.

    Args:
        runs: Runs; one that names no dates covers none.
        names: What to call the assets; others are left out.
    """
    for run in runs:
        selected = run.asset_selection
        if selected is None:
            selected = names.keys() if run.job_name.startswith(_ALL_ASSETS) else frozenset()
        dates = dates_of(run.tags)
        for key in selected & names.keys():
            for date in dates:
                yield names[key], date


class RunFates:
    """What became of runs that ended without success; looked up once for a tick."""

    def __init__(self, instance: dg.DagsterInstance, *, now: dt.datetime) -> None:
        self._instance, self._now = instance, now
        self._backfills: dict[str, BackfillState] = {}

    def ended_badly(self, sensor: str, *, since: dt.datetime) -> Sequence[RunRecord]:
        """Return the runs of a sensor that ended without success after a time."""
        runs = RunsFilter(tags={SENSOR_TAG: sensor}, statuses=ENDED_BADLY, updated_after=since)
        return self._instance.get_run_records(runs, limit=RUNS_READ)

    def by_id(self, run_ids: Iterable[str]) -> dict[str, RunRecord]:
        """Return the runs with these IDs, by ID."""
        ids = sorted(set(run_ids))
        if not ids:
            return {}  # an empty list would find all runs
        records = self._instance.get_run_records(RunsFilter(run_ids=ids))
        return {record.dagster_run.run_id: record for record in records}

    def is_lost(self, record: RunRecord) -> bool:
        """Whether the run, and each retry of it, ended without success, and none will follow."""
        last = self._last_retry(record)
        run = last.dagster_run
        if run.status not in ENDED_BADLY:
            return False
        return not self.will_be_retried(last)

    def will_be_retried(self, record: RunRecord) -> bool:
        """Whether Dagster is going to retry a run that has ended."""
        run = record.dagster_run
        if not run.is_complete_and_waiting_to_retry:
            return False
        backfill = run.tags.get(BACKFILL_TAG)
        if backfill and self.backfill(backfill) is not BackfillState.REQUESTED:
            return False  # Dagster announces the retry all the same
        return self._now - record.update_timestamp.replace(tzinfo=dt.UTC) < RETRY_TIMEOUT

    def backfill(self, backfill_id: str) -> BackfillState:
        """Return the state of a backfill."""
        if backfill_id not in self._backfills:
            self._backfills[backfill_id] = backfill_state(self._instance, backfill_id)
        return self._backfills[backfill_id]

    def _last_retry(self, record: RunRecord) -> RunRecord:
        while retry := record.dagster_run.tags.get(AUTO_RETRY_TAG):
            following = self._instance.get_run_record_by_id(retry)
            if following is None:  # somebody deleted it
                break
            record = following
        return record


def created(record: RunRecord) -> dt.datetime:
    """Return when a run was created; Dagster keeps it as UTC without saying so."""
    return record.create_timestamp.replace(tzinfo=dt.UTC)


def succeeded(records: Mapping[str, RunRecord]) -> frozenset[str]:
    """Return the IDs of the runs that ended in success."""
    return frozenset(
        run_id
        for run_id, record in records.items()
        if record.dagster_run.status is DagsterRunStatus.SUCCESS
    )
