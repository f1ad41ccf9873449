"""A repeat of any operation at any point succeeds, in the same run or another one (D31)."""

import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from gardener_dagster.warehouse.engine import Settings
from gardener_dagster.warehouse.errors import BigQueryFailure, RefusedCopy
from gardener_dagster.warehouse.names import JobContext
from gardener_dagster.warehouse.objects import LoadSource

if TYPE_CHECKING:
    from tests.gardener_dagster.warehouse.operations.conftest import Lab

DATE = dt.date(2024, 3, 1)
STEPS = ("load", "dedup", "copy", "delete", "join")


class Run:
    """A Dagster run over all operations, and what the job store knows.

    Attributes:
        copied: a copy is recorded, which happens before the delete.
    """

    def __init__(self, lab: "Lab", source: LoadSource) -> None:
        self.lab, self.source, self.copied = lab, source, False
        self.rows_loaded: int | None = None

    def do(self, step: str, ctx: JobContext) -> None:
        warehouse, tables = self.lab.warehouse(), self.lab.tables()
        if step == "load":
            self.rows_loaded = warehouse.load(tables, self.source, ctx).rows
            self.copied = False
        elif step == "dedup":
            warehouse.dedup(tables, ("id",), ctx)
        elif step == "copy":
            warehouse.copy(
                tables,
                ctx,
                parse_had_no_files=False,
                already_copied=self.copied,
                rows_loaded=self.rows_loaded,
            )
            self.copied = True
        elif step == "delete":
            warehouse.delete(tables, ctx)
        else:
            warehouse.join(tables, ctx, annotations_known_empty=True)


@pytest.mark.parametrize("new_seed", [False, True])
@pytest.mark.parametrize("again_from", STEPS)
def test_d31_a_repeat_from_any_operation_after_all_are_done_succeeds(
    lab: "Lab", rows: Any, again_from: str, new_seed: bool
) -> None:
    source = lab.source({"a": [rows.ndt7("x"), rows.ndt7("x")], "b": [rows.ndt7("y")]})
    run, ctx = Run(lab, source), lab.context()
    for step in STEPS:
        run.do(step, ctx)
    ctx = lab.context() if new_seed else ctx
    for step in STEPS[STEPS.index(again_from) :]:
        run.do(step, ctx)
    tables = lab.tables()
    assert lab.ids(tables.raw_partition(DATE)) == ["x", "y"]
    assert lab.ids(tables.joined_partition(DATE)) == ["x", "y"]
    assert lab.ids(tables.tmp_partition(DATE)) == []


@pytest.mark.parametrize(
    ("after", "from_start", "new_seed"),
    [(False, False, False), (True, False, False), (True, True, True)],
)
@pytest.mark.parametrize("step", STEPS)
def test_d31_a_crash_at_any_change_of_an_operation_is_repaired_by_a_repeat(
    lab: "Lab",
    rows: Any,
    crash: type[Exception],
    step: str,
    after: bool,
    from_start: bool,
    new_seed: bool,
) -> None:
    """The process dies at each request that changes something, before or after it took effect."""
    source = lab.source({"a": [rows.ndt7("x"), rows.ndt7("x")], "b": [rows.ndt7("y")]})
    run, ctx, tables = Run(lab, source), lab.context(), lab.tables()
    for done in STEPS:
        run.do(done, ctx)  # so that all tables are there, and raw has the rows of an earlier parse
    ctx = replace(lab.context(), seed="parse-2")
    for done in STEPS[: STEPS.index(step)]:
        run.do(done, ctx)
    lab.faults.crash(skip=0, after=after)
    lab.faults.pending[-1].method = "DELETE" if step == "delete" else "POST"
    with pytest.raises(crash):
        run.do(step, ctx)
    lab.faults.pending.clear()
    ctx = replace(ctx, run_id="another", seed="" if new_seed else ctx.seed)
    for again in STEPS[0 if from_start else STEPS.index(step) :]:
        run.do(again, ctx)
    assert lab.ids(tables.raw_partition(DATE)) == ["x", "y"]
    assert lab.ids(tables.joined_partition(DATE)) == ["x", "y"]
    assert lab.ids(tables.tmp_partition(DATE)) == []


def test_d31_a_copy_of_the_same_work_is_found_without_being_told(lab: "Lab", rows: Any) -> None:
    tables = lab.tables()
    first = JobContext(run_id="one", date=DATE, seed="parse-1")
    lab.load([rows.ndt7("x")])
    lab.warehouse().copy(tables, first, parse_had_no_files=False)
    lab.warehouse().delete(tables, first)
    again = JobContext(run_id="two", date=DATE, seed="parse-1")
    assert lab.warehouse().copy(tables, again, parse_had_no_files=False).rows == 1
    other = JobContext(run_id="two", date=DATE, seed="parse-2")
    with pytest.raises(RefusedCopy):
        lab.warehouse().copy(tables, other, parse_had_no_files=False)


def test_a_load_that_had_ended_is_not_taken_for_this_one(lab: "Lab", rows: Any) -> None:
    """Its rows may have left tmp since, and its objects may have been written again."""
    ctx, tables = lab.context(), lab.tables()
    lab.warehouse().load(tables, lab.source({"a": [rows.ndt7("old")]}), ctx)
    lab.warehouse().delete(tables, ctx)
    result = lab.warehouse().load(tables, lab.source({"a": [rows.ndt7("new")]}), ctx)
    assert lab.ids(tables.tmp_partition(DATE)) == ["new"]
    assert result.bq_job_ids == (f"{ctx.job_id('load', tables.tmp_partition(DATE))}-2",)


def test_a_copy_that_had_ended_is_not_taken_for_this_one(lab: "Lab", rows: Any) -> None:
    ctx, tables = lab.context(), lab.tables()
    for identity in ("old", "new"):
        lab.load([rows.ndt7(identity)])
        lab.warehouse().copy(tables, ctx, parse_had_no_files=False)
    assert lab.ids(tables.raw_partition(DATE)) == ["new"]


def test_a_job_that_failed_or_was_cancelled_is_followed_by_another(lab: "Lab", rows: Any) -> None:
    source, ctx = lab.source({"a": [rows.ndt7("x")]}), lab.context()
    lab.faults.fail_job("gardener-load", "stopped", "Job execution was cancelled")
    with pytest.raises(BigQueryFailure, match="somebody cancelled"):
        lab.warehouse().load(lab.tables(), source, ctx)
    result = lab.warehouse().load(lab.tables(), source, ctx)
    assert result.bq_job_ids[0].endswith("-2")
    assert lab.ids(lab.tables().tmp_partition(DATE)) == ["x"]


End = Callable[[dict[str, Any]], None]


def succeed(resource: dict[str, Any]) -> None:
    resource["status"] = {"state": "DONE"}
    resource["statistics"] = {"load": {"inputFiles": "1", "outputRows": "1"}}


def be_cancelled(resource: dict[str, Any]) -> None:
    error = {"reason": "stopped", "message": "Job execution was cancelled"}
    resource["status"] = {"state": "DONE", "errorResult": error, "errors": [error]}


@pytest.mark.parametrize(("end", "inserted"), [(succeed, 0), (be_cancelled, 1)])
def test_a_job_of_an_earlier_try_that_runs_is_waited_for(
    lab: "Lab", rows: Any, crash: type[Exception], end: End, inserted: int
) -> None:
    source, ctx = lab.source({"a": [rows.ndt7("x")]}), lab.context()
    leave_running(lab, source, ctx, crash)
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            [resource] = lab.faults.emulated_jobs.values()
            end(resource)

    lab.warehouse(sleep=sleep).load(lab.tables(), source, ctx)
    assert len(waited) >= 3
    assert len(set(lab.faults.job_ids("gardener-load"))) == inserted


def test_a_job_of_an_earlier_try_with_other_objects_is_cancelled(
    lab: "Lab", rows: Any, crash: type[Exception]
) -> None:
    ctx = lab.context()
    leave_running(lab, lab.source({"a": [rows.ndt7("x")]}), ctx, crash)
    source = lab.source({"a": [rows.ndt7("y")], "b": [rows.ndt7("z")]})
    settings = Settings(priority="INTERACTIVE", cancel_timeout=0.05)
    result = lab.warehouse(settings=settings).load(lab.tables(), source, ctx)
    assert result.bq_job_ids[0].endswith("-2")
    assert any("/cancel" in str(request.path_url) for request in lab.faults.seen)
    assert lab.ids(lab.tables().tmp_partition(DATE)) == ["y", "z"]


def test_a_job_of_a_run_that_is_gone_is_cancelled_by_whoever_takes_over(
    lab: "Lab", rows: Any, crash: type[Exception]
) -> None:
    """It would load the rows anew between the dedup and the copy of the run that follows."""
    gone, ctx, tables = lab.context(), lab.context(), lab.tables()
    leave_running(lab, lab.source({"a": [rows.ndt7("x")]}), gone, crash)
    settings = Settings(priority="INTERACTIVE", cancel_timeout=0.05)
    warehouse = lab.warehouse(settings=settings)

    def cancelled() -> list[str]:
        return [str(seen.path_url) for seen in lab.faults.seen if "/cancel" in str(seen.path_url)]

    warehouse.cancel_unfinished(tables, ctx, run_id="another")
    warehouse.cancel_unfinished(tables, gone, run_id=gone.run_id)
    assert cancelled() == [], "neither another run's, nor what the same work goes on with"
    warehouse.cancel_unfinished(tables, ctx, run_id=gone.run_id)
    assert len(cancelled()) == 1
    assert gone.job_id("load", tables.tmp_partition(DATE)) in cancelled()[0]


def leave_running(lab: "Lab", source: LoadSource, ctx: JobContext, crash: type[Exception]) -> None:
    """The process of an earlier try is killed while its load job runs."""
    lab.faults.hang_job("gardener-load")

    def die(_: float) -> None:
        raise crash

    lab.faults.refuse(503, "backendError", path="/cancel$", times=1)
    settings = Settings(priority="INTERACTIVE", cancel_timeout=0.0)
    with pytest.raises(crash):
        lab.warehouse(sleep=die, settings=settings).load(lab.tables(), source, ctx)
    lab.faults.pending.clear()
    lab.faults.seen.clear()
