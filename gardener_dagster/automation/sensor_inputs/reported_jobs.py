"""Parsed jobs that the sensor ``parsed_jobs`` reports to Dagster, and what it notes of that.

Dagster keeps the events and the cursor of a tick together, or neither. So the cursor says what was
reported, and the next tick notes it in the job store: a tick that dies reports again, and
nothing is lost.
"""

import datetime as dt
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, model_validator

from gardener_api.jobs.job import Parsed, ParseReport
from gardener_api.store.store import JobStore
from gardener_dagster.automation.run_requests import read_cursor


class ReportedJobs(BaseModel):
    """The sensor's cursor: what its last tick reported.

    Attributes:
        jobs: By the job's number its requesters, each with the time when it had asked. A run that
            asks after the report is not in it: the job is reported again for it.
    """

    model_config = ConfigDict(frozen=True)

    jobs: dict[int, dict[str, dt.datetime]] = {}

    @model_validator(mode="before")
    @classmethod
    def _numbers_alone(cls, value: object) -> object:
        """Earlier versions kept a list of numbers."""
        return {"jobs": {number: {} for number in value}} if isinstance(value, list) else value


def reported_cursor(parsed: Iterable[Parsed]) -> str:
    """The cursor after a tick that reports these jobs."""
    reports = (ParseReport.of(item) for item in parsed)
    return ReportedJobs(jobs={a.number: dict(a.requests) for a in reports}).model_dump_json()


def confirm_reported(store: JobStore, cursor: str | None, *, now: dt.datetime) -> None:
    """Note in the job store what the tick before reported.

    Raises:
        ValueError: The cursor is none of this sensor's.
    """
    before = read_cursor(ReportedJobs, cursor)
    if before and before.jobs:
        reports = [
            ParseReport(number=number, requests=asked) for number, asked in before.jobs.items()
        ]
        store.confirm_reports(reports, now=now)
