"""Whether a date of a run can be joined: it waits for annotations that other runs are making.

So a daily run needs not wait for the run of its annotations before it starts, and no second run
starts for the join.
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
        work: What the run makes.
        date: The date.
        watch: Says whether the run must stop.
    """

    work: TablesWork
    date: dt.date
    watch: RunWatch

    def awaited(self) -> list[Job]:
        """Return the jobs that are about to change them."""
        annotations = self.work.annotations
        if annotations is None or self.work.decision is not None:  # about what was read then
            return []
        own = job_key(self.work.source, self.date)
        keys = [job_key(annotations, date) for date in (self.date, self.date - ONE_DAY)]
        open_jobs = self.work.store.open_keys([own, *keys])
        priority = open_jobs[own].priority if own in open_jobs else Priority.BACKFILL
        return awaited_annotations(annotations, self.date, open_jobs, priority)

    def wait(self) -> str:
        """Wait until they are made, as long as it is worth it.

        Returns:
            The jobs that were waited for in vain, if the date has no annotations at all and the run
            made its rows: the sensor ``joins`` starts the join when there are some. Else nothing:
            the join is to be tried, and is made again when its annotations have changed.

        Raises:
            RunStopped: The run is to stop.
        """
        jobs = awaited = self.awaited()
        while awaited and is_worth_waiting(awaited, now=utc_now()):
            self.watch.look_now_and_then()
            if self.watch.stopping.wait(POLL_SECONDS):
                raise RunStopped(f"run {self.work.run_id} was stopped before its join")
            awaited = self.awaited()
        is_left = raw_key(self.work.source) in self.work.selected and not self._are_any()
        return ", ".join(job.id for job in jobs) if is_left else ""

    def _are_any(self) -> bool:
        table = self.work.annotations.raw_table if self.work.annotations else ""
        return self.work.store.tables.partition(table, self.date) is not None
