"""Which runs of tables were lost before they had made their dates. Pure, as ``due_tables``."""

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gardener_api.jobs.job import Job, JobState

MOST_LOST = 4
"""Maximum number of lost runs per date; then none is started, since the date may kill its runs."""


@dataclass(frozen=True, kw_only=True)
class EndedRun:
    """A Dagster run that failed or was cancelled."""

    run_id: str
    status: str
    created: dt.datetime


@dataclass(frozen=True, kw_only=True)
class LostRun:
    """A job whose table run ended without finishing the job.

    Attributes:
        job: The job.
        run_id: ID of the run.
        status: Dagster's status of the run.
        count: Known number of lost runs of the job since its parse.
    """

    job: Job
    run_id: str
    status: str
    count: int = 1

    @property
    def is_to_repeat(self) -> bool:
        """Whether to start another run: the run failed, and fewer than ``MOST_LOST`` were lost."""
        return self.status == "FAILURE" and self.count < MOST_LOST

    @property
    def reason(self) -> str:
        """The error text of the job."""
        return (
            f"Dagster run {self.run_id} of its tables ended {self.status} in state"
            f" {self.job.state}: read its log, then re-execute it"
        )


def lost_runs(
    jobs: Iterable[Job],
    *,
    by_id: Mapping[str, str],
    by_date: Mapping[tuple[str, dt.date], Sequence[EndedRun]],
) -> Iterator[LostRun]:
    """Yield the jobs whose table run ended without success and will not be retried.

    Args:
        jobs: Jobs whose parse is done and whose tables are not.
        by_id: Status of such runs, by run ID: finds jobs whose tables a run has begun.
        by_date: Such runs started by the sensor, by source and date, the newest first: finds jobs
            whose run ended before it began them. Runs created before the job was parsed are
            ignored: they belong to an earlier parse.
    """
    for job in jobs:
        runs = [
            run
            for run in by_date.get((job.key.source, job.key.date), ())
            if job.parsed is not None and run.created >= job.parsed
        ]
        if job.state is JobState.POST_PROCESSING:
            if runs:
                [last, *_] = runs
                yield LostRun(job=job, run_id=last.run_id, status=last.status, count=len(runs))
        elif job.run_id in by_id:
            yield LostRun(
                job=job, run_id=job.run_id, status=by_id[job.run_id], count=max(1, len(runs))
            )
