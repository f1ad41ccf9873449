"""Jobs of three sources for the tests of plans: ndt7 is joined with annotation2, tcpinfo is not."""

import datetime as dt
from collections.abc import Iterable
from dataclasses import replace

from job_requests import request_for

from gardener_api.config import GardenerConfig
from gardener_api.jobs.job import Job, JobState, Priority, new_job
from gardener_dagster.planning.due_joins import JoinRun
from gardener_dagster.planning.due_tables import TablesRun, job_key
from gardener_dagster.planning.ranges import ONE_DAY

START = dt.date(2024, 1, 1)
NOW = dt.datetime(2024, 3, 1, 12, tzinfo=dt.UTC)
GATHER = dt.timedelta(seconds=60)
NAMES = ("ndt/annotation2", "ndt/ndt7", "ndt/tcpinfo")


def make_config(dates_per_run: int = 4) -> GardenerConfig:
    return GardenerConfig.model_validate(
        {
            "start_date": START.isoformat(),
            "tables": {"dates_per_run": dates_per_run, "gather": "60s"},
            "sources": [
                {"bucket": "archive-mlab", "experiment": "ndt", "datatype": "annotation2"},
                {
                    "bucket": "archive-mlab",
                    "experiment": "ndt",
                    "datatype": "ndt7",
                    "target_datasets": {"join": "ndt"},
                },
                {"bucket": "archive-mlab", "experiment": "ndt", "datatype": "tcpinfo"},
            ],
        }
    )


CONFIG = make_config()


def day(number: int) -> dt.date:
    """A date by its distance from the start."""
    return START + number * ONE_DAY


def make_job(
    number: int,
    name: str = "ndt/annotation2",
    *,
    state: JobState = JobState.POST_PROCESSING,
    priority: Priority = Priority.BACKFILL,
    age: dt.timedelta = dt.timedelta(),
) -> Job:
    key = job_key(CONFIG.source(name), day(number))
    job = new_job(request_for(key, priority=priority), 1, now=NOW - age)
    parsed = NOW - age if state is not JobState.QUEUED else None
    return replace(job, number=NAMES.index(name) + 3 * number, state=state, parsed=parsed)


def spans(runs: Iterable[TablesRun | JoinRun]) -> list[tuple[int, int]]:
    return [((run.first - START).days, (run.last - START).days) for run in runs]
