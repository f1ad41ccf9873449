"""Parsed jobs that the sensor ``parsed_jobs`` reports to Dagster, and what it notes of that.

Dagster stores both the events and the cursor of a tick, or neither. So the cursor lists the
reported jobs, and the next tick marks them as reported in the job store. After a failed tick, the
jobs are reported again.
"""

import datetime as dt
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, model_validator

from gardener_api.jobs.job import Parsed, ParseReport
from gardener_api.store.store import JobStore
from gardener_dagster.automation.run_requests import read_cursor


class ReportedJobs(BaseModel):
    """The sensor's cursor: the jobs that its last tick reported.

    Attributes:
        jobs: By job number, the time of the last request of each requester. A later request is not
            included: the job is reported again for it.
    """

    model_config = ConfigDict(frozen=True)

    jobs: dict[int, dict[str, dt.datetime]] = {}

    @model_validator(mode="before")
    @classmethod
    def _numbers_alone(cls, value: object) -> object:
        """Convert the list of job numbers that earlier versions stored."""
        return {"jobs": {number: {} for number in value}} if isinstance(value, list) else value


def reported_cursor(parsed: Iterable[Parsed]) -> str:
    """Return the cursor after a tick that reports these jobs."""
    reports = (ParseReport.of(item) for item in parsed)
    return ReportedJobs(jobs={a.number: dict(a.requests) for a in reports}).model_dump_json()


def confirm_reported(store: JobStore, cursor: str | None, *, now: dt.datetime) -> None:
    """Mark the jobs that the previous tick reported, in the job store.

    Raises:
        ValueError: The text is not a cursor of this sensor.
    """
    before = read_cursor(ReportedJobs, cursor)
    if before and before.jobs:
        reports = [
            ParseReport(number=number, requests=asked) for number, asked in before.jobs.items()
        ]
        store.confirm_reports(reports, now=now)
