"""Which runs of tables were lost before they had made their dates. Pure, as ``due_tables``."""

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gardener_api.jobs.job import Job, JobState

MOST_LOST = 4
"""Lost runs of a date after which no other is started: the date itself may be what kills them."""


@dataclass(frozen=True, kw_only=True)
class EndedRun:
    """A run of Dagster that ended without success."""

    run_id: str
    status: str
    created: dt.datetime


@dataclass(frozen=True, kw_only=True)
class LostRun:
    """A job whose run of tables is over and did not bring it to an end.

    Attributes:
        job: The job.
        run_id: The run.
        status: How it ended, in Dagster's words.
        count: How many runs of the job were lost since its parse, as far as is known.
    """

    job: Job
    run_id: str
    status: str
    count: int = 1

    @property
    def is_to_repeat(self) -> bool:
        """Whether another run is to be started: nobody cancelled it, and not too many were lost."""
        return self.status == "FAILURE" and self.count < MOST_LOST

    @property
    def reason(self) -> str:
        """What to write into the job."""
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
    """Yield the jobs whose run of tables ended without success and will not be retried.

    Args:
        jobs: Jobs whose parse is done and whose tables are not.
        by_id: The status of such runs, by run ID: for jobs whose tables a run has begun.
        by_date: Such runs that the sensor started, by source and date, the newest first: for jobs
            that it was started for and that it never came to. One of before the parse was for an
            older one.
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
