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
"""Tag that Dagster sets on a retried run: the ID of the retry."""

RETRY_TIMEOUT = dt.timedelta(minutes=10)
"""How long to wait for the retry that Dagster announced on a failed run. It usually takes seconds;
if the daemon could not launch it, it never comes, and the run is lost."""

RUNS_READ = 500
"""Maximum number of ended runs that a tick reads, the newest first."""

_ALL_ASSETS = "__ASSET_JOB"
"""Prefix of Dagster's job name of runs that a person or a backfill launches for assets."""


def unended_runs(instance: dg.DagsterInstance) -> Sequence[dg.DagsterRun]:
    """Return the runs that are queued, starting, started or being cancelled."""
    return instance.get_runs(RunsFilter(statuses=NOT_ENDED))


def started_by(
    runs: Iterable[dg.DagsterRun], sensor: str, names: Mapping[dg.AssetKey, str]
) -> Counter[str]:
    """Count the runs that a sensor started, by the name of each asset that they make.

    Args:
        runs: Runs, whether or not the sensor started them.
        sensor: Name of the sensor.
        names: The names of the assets; other assets are ignored.
    """
    theirs = [run for run in runs if run.tags.get(SENSOR_TAG) == sensor]
    made = (key for run in theirs for key in run.asset_selection or ())
    return Counter(names[key] for key in made if key in names)


def covered(
    runs: Iterable[dg.DagsterRun], names: Mapping[dg.AssetKey, str]
) -> Iterator[tuple[str, dt.date]]:
    """Yield the asset name and date of each partition that the runs make.

    Args:
        runs: Runs; those without dates in their tags are ignored.
        names: The names of the assets; other assets are ignored.
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
    """Look up failed and cancelled runs and their retries; one instance per tick."""

    def __init__(self, instance: dg.DagsterInstance, *, now: dt.datetime) -> None:
        self._instance, self._now = instance, now
        self._backfills: dict[str, BackfillState] = {}

    def ended_badly(self, sensor: str, *, since: dt.datetime) -> Sequence[RunRecord]:
        """Return the failed and cancelled runs of a sensor that were updated after ``since``."""
        runs = RunsFilter(tags={SENSOR_TAG: sensor}, statuses=ENDED_BADLY, updated_after=since)
        return self._instance.get_run_records(runs, limit=RUNS_READ)

    def by_id(self, run_ids: Iterable[str]) -> dict[str, RunRecord]:
        """Return the runs with these IDs, by ID."""
        ids = sorted(set(run_ids))
        if not ids:
            return {}  # an empty filter would match all runs
        records = self._instance.get_run_records(RunsFilter(run_ids=ids))
        return {record.dagster_run.run_id: record for record in records}

    def is_lost(self, record: RunRecord) -> bool:
        """Whether a run and all its retries failed or were cancelled, and no retry will follow."""
        last = self._last_retry(record)
        run = last.dagster_run
        if run.status not in ENDED_BADLY:
            return False
        return not self.will_be_retried(last)

    def will_be_retried(self, record: RunRecord) -> bool:
        """Whether Dagster will retry an ended run."""
        run = record.dagster_run
        if not run.is_complete_and_waiting_to_retry:
            return False
        backfill = run.tags.get(BACKFILL_TAG)
        if backfill and self.backfill(backfill) is not BackfillState.REQUESTED:
            return False  # Dagster announces a retry even then
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
    """Return when a run was created; Dagster stores it as UTC without a time zone."""
    return record.create_timestamp.replace(tzinfo=dt.UTC)


def succeeded(records: Mapping[str, RunRecord]) -> frozenset[str]:
    """Return the IDs of the successful runs."""
    return frozenset(
        run_id
        for run_id, record in records.items()
        if record.dagster_run.status is DagsterRunStatus.SUCCESS
    )
