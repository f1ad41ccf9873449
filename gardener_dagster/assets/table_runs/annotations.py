"""Whether a date of a run can be joined: it waits for annotations that other runs are making.

So a daily run can start before its annotations are made, and its join needs no second run.
"""

import datetime as dt
from dataclasses import dataclass

from gardener_api.jobs.job import Job, Priority
from gardener_dagster.assets.keys import raw_key
from gardener_dagster.assets.table_runs.locking import RunStopped, RunWatch, utc_now
from gardener_dagster.assets.table_runs.work import TablesWork
from gardener_dagster.planning.due_tables import awaited_annotations, is_worth_waiting, job_key
from gardener_dagster.planning.ranges import ONE_DAY

POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Annotations:
    """The annotations that the join of one date reads.

    Attributes:
        work: The work of the run.
        date: The date.
        watch: Tells whether the run must stop.
    """

    work: TablesWork
    date: dt.date
    watch: RunWatch

    def awaited(self) -> list[Job]:
        """Return the unfinished jobs that will change these annotations."""
        annotations = self.work.annotations
        if annotations is None or self.work.decision is not None:  # a decision has fixed inputs
            return []
        own = job_key(self.work.source, self.date)
        keys = [job_key(annotations, date) for date in (self.date, self.date - ONE_DAY)]
        open_jobs = self.work.store.open_keys([own, *keys])
        priority = open_jobs[own].priority if own in open_jobs else Priority.BACKFILL
        return awaited_annotations(annotations, self.date, open_jobs, priority)

    def wait(self) -> str:
        """Wait until the annotations are made, while ``is_worth_waiting`` is true.

        Returns:
            IDs of the awaited jobs if the date still has no annotations and the run also makes raw:
            do not join; the sensor ``joins`` starts the join later. Else empty: join now; the join
            is repeated when its annotations change.

        Raises:
            RunStopped: The run must stop.
        """
        jobs = awaited = self.awaited()
        while awaited and is_worth_waiting(awaited, now=utc_now()):
            self.watch.look_now_and_then()
            if self.watch.stopping.wait(POLL_SECONDS):
                raise RunStopped(f"run {self.work.run_id} was stopped before its join")
            awaited = self.awaited()
        makes_raw = raw_key(self.work.source) in self.work.selected
        return (
            ", ".join(job.id for job in jobs) if jobs and makes_raw and not self._are_any() else ""
        )

    def _are_any(self) -> bool:
        table = self.work.annotations.raw_table if self.work.annotations else ""
        return self.work.store.tables.partition(table, self.date) is not None
