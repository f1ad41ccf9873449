"""Snapshot about jobs, and the problems that the status page finds in them."""

import datetime as dt
from dataclasses import replace
from typing import Any

from gardener_api.config import GardenerConfig
from gardener_api.jobs.job import JobState
from gardener_api.jobs.snapshot import (
    JobFact,
    Snapshot,
)
from gardener_api.status.problem import Problem
from gardener_api.status.problems import find_problems

NOW = dt.datetime(2024, 3, 20, 14, 0, tzinfo=dt.UTC)
MINUTE, HOUR, DAY = dt.timedelta(minutes=1), dt.timedelta(hours=1), dt.timedelta(days=1)


def fact(state: JobState = JobState.QUEUED, ago: dt.timedelta = HOUR, **changed: Any) -> JobFact:
    values: dict[str, Any] = {
        "number": 7,
        "experiment": "ndt",
        "datatype": "ndt7",
        "date": dt.date(2024, 3, 19),
        "state": state,
        "failed_in": None,
        "error": "",
        "parser": "",
        "entered": NOW - ago,
        "updated": None,
        "lease_expires": None,
    }
    return JobFact(**values | changed)


def failed(error: str, **changed: Any) -> JobFact:
    return fact(JobState.FAILED, **{"error": error, "failed_in": JobState.LOADING} | changed)


def problems(config: GardenerConfig, snapshot: Snapshot, **changed: Any) -> list[Problem]:
    return find_problems(config, replace(snapshot, **changed), now=NOW)
