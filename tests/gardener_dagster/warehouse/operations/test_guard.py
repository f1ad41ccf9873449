"""A step that must stop: its guard is asked, and its BigQuery job does not write later (D30)."""

import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest

from gardener_dagster.warehouse.engine import RetryPolicy, Settings
from gardener_dagster.warehouse.errors import RetriesExhausted
from gardener_dagster.warehouse.names import JobContext

if TYPE_CHECKING:
    from tests.gardener_dagster.warehouse.operations.conftest import Lab

DATE = dt.date(2024, 3, 1)


class Lost(Exception):
    """Another run has the partition."""


class Interrupted(BaseException):
    """What Dagster raises in a step whose run is cancelled is no Exception either."""


class Guard:
    """Lets so many calls pass, then raises."""

    def __init__(self, lab: "Lab", passes: int) -> None:
        self.lab, self.passes, self.calls = lab, passes, 0
        self.requests_when_lost = 0

    def __call__(self) -> None:
        self.calls += 1
        if self.calls > self.passes:
            self.requests_when_lost = len(self.lab.faults.seen)
            raise Lost


def guarded(guard: Guard) -> JobContext:
    return JobContext(run_id="r", date=DATE, guard=guard)


def changing(lab: "Lab", first: int = 0) -> list[str]:
    """Requests that change something, but for cancelling."""
    return [
        f"{request.method} {request.path_url}"
        for request in lab.faults.seen[first:]
        if request.method != "GET" and not is_cancel(request)
    ]


def is_cancel(request: Any) -> bool:
    return str(request.path_url).split("?")[0].endswith("/cancel")


def cancelled(lab: "Lab") -> bool:
    return any(is_cancel(request) for request in lab.faults.seen)


def test_d30_the_guard_is_asked_before_every_change(lab: "Lab", rows: Any) -> None:
    source, tables = lab.source({"a": [rows.ndt7("x"), rows.ndt7("x")]}), lab.tables()
    asked_at: set[int] = set()  # how many requests had been made
    ctx = JobContext(run_id="r", date=DATE, guard=lambda: asked_at.add(len(lab.faults.seen)))
    warehouse = lab.warehouse()
    warehouse.load(tables, source, ctx)
    warehouse.dedup(tables, ("id",), ctx)
    warehouse.copy(tables, ctx, parse_had_no_files=False)
    warehouse.delete(tables, ctx)
    warehouse.join(tables, ctx, annotations_known_empty=True)
    changes = [i for i, request in enumerate(lab.faults.seen) if request.method != "GET"]
    assert len(changes) > 12  # five jobs and more, four tables, three datasets
    assert [i for i in changes if i not in asked_at] == []
    assert lab.ids(tables.joined_partition(DATE)) == ["x"]


@pytest.mark.parametrize("passes", [0, 1, 2, 5, 8])
def test_d30_nothing_is_changed_once_the_partition_is_lost(
    lab: "Lab", rows: Any, passes: int
) -> None:
    source, guard = lab.source({"a": [rows.ndt7("x")]}), Guard(lab, passes)
    ctx, tables, warehouse = guarded(guard), lab.tables(), lab.warehouse()

    def work() -> None:
        warehouse.load(tables, source, ctx)
        warehouse.copy(tables, ctx, parse_had_no_files=False)
        warehouse.delete(tables, ctx)

    with pytest.raises(Lost):
        work()
    assert changing(lab, guard.requests_when_lost) == []


def test_d30_a_job_is_cancelled_when_the_partition_is_lost_while_it_runs(
    lab: "Lab", rows: Any
) -> None:
    lab.load([rows.ndt7("old")])
    source = lab.source({"a": [rows.ndt7("x")]})
    lab.faults.hang_job("gardener-load")
    guard = Guard(lab, 3)
    settings = Settings(priority="INTERACTIVE", cancel_timeout=0.1)
    with pytest.raises(Lost):
        lab.warehouse(settings=settings).load(lab.tables(), source, guarded(guard))
    assert cancelled(lab)
    assert lab.ids(lab.tables().tmp_partition(DATE)) == ["old"]


def test_d30_a_job_is_cancelled_when_bigquery_cannot_be_asked_any_more(
    lab: "Lab", rows: Any
) -> None:
    source = lab.source({"a": [rows.ndt7("x")]})
    lab.faults.hang_job("gardener-load")
    polled: list[str] = []

    def break_down(_: float) -> None:
        if not polled:  # the job's first poll: every later GET of the job is refused
            polled.append("")
            job_id = lab.faults.job_ids("gardener-load")[0]
            resource = lab.faults.emulated_jobs.pop(job_id)
            lab.faults.refuse(503, "backendError", method="GET", path=job_id, times=10**6)
            lab.faults.emulated_jobs[f"{job_id}/cancel"] = resource

    settings = Settings(
        priority="INTERACTIVE",
        cancel_timeout=0.1,
        retry=RetryPolicy(initial=0.01, maximum=0.02, timeout=0.3, request=30.0),
    )
    with pytest.raises(RetriesExhausted):
        lab.warehouse(settings=settings, sleep=break_down).load(lab.tables(), source, lab.context())
    assert cancelled(lab)


def test_d30_a_job_whose_insertion_had_no_answer_is_cancelled(lab: "Lab", rows: Any) -> None:
    """The server has the job, the client never hears of it and gives up."""
    source = lab.source({"a": [rows.ndt7("x")]})
    lab.faults.cut(method="POST", path=r"/jobs$", job="gardener-load", times=10**6)
    lab.faults.cut(method="GET", path=r"/jobs/gardener-load", before=True, times=10**6)
    lab.faults.pending[-1].skip = 1  # the look for a job of an earlier try
    warehouse = lab.warehouse(settings=lab.impatient)
    with pytest.raises(RetriesExhausted):
        warehouse.load(lab.tables(), source, lab.context())
    assert cancelled(lab)


def test_d30_a_lost_partition_ends_the_retries_of_a_call(lab: "Lab", rows: Any) -> None:
    lab.load([rows.ndt7("x")])
    lab.faults.seen.clear()
    lab.faults.refuse(503, "backendError", method="DELETE", times=10**6)
    with pytest.raises(Lost):
        lab.warehouse().delete(lab.tables(), guarded(Guard(lab, 2)))
    assert len(changing(lab)) == 2
    assert lab.ids(lab.tables().tmp_partition(DATE)) == ["x"]


def test_d30_after_a_cancel_the_end_of_the_job_is_waited_for(lab: "Lab", rows: Any) -> None:
    """A cancelled job may still write: who gives up returns only when it is DONE."""
    lab.load([rows.ndt7("old")])
    source = lab.source({"a": [rows.ndt7("x")]})
    lab.faults.hang_job("gardener-load")
    polls: list[int] = []

    def sleep(_: float) -> None:
        if cancelled(lab):
            polls.append(len(lab.faults.seen))
            if len(polls) == 3:
                [resource] = lab.faults.emulated_jobs.values()
                resource["status"] = {"state": "DONE"}

    with pytest.raises(Lost):
        lab.warehouse(sleep=sleep).load(lab.tables(), source, guarded(Guard(lab, 3)))
    assert len(polls) == 3
    assert len(lab.faults.seen) > polls[-1]


def test_a_cancelled_run_cancels_its_job(lab: "Lab", rows: Any) -> None:
    source = lab.source({"a": [rows.ndt7("x")]})

    def interrupt(_: float) -> None:
        raise Interrupted

    lab.faults.hang_job("gardener-load")
    with pytest.raises(Interrupted):
        lab.warehouse(sleep=interrupt).load(lab.tables(), source, lab.context())
    assert cancelled(lab)


def test_bigquery_itself_ends_a_job_whose_process_is_gone(lab: "Lab", rows: Any) -> None:
    lab.load([rows.ndt7("x")] * 2)
    settings = Settings(priority="INTERACTIVE", job_timeout=dt.timedelta(hours=2))
    ctx, warehouse = lab.context(), lab.warehouse(settings=settings)
    ids = warehouse.dedup(lab.tables(), ("id",), ctx).bq_job_ids
    ids += warehouse.copy(lab.tables(), ctx, parse_had_no_files=False).bq_job_ids
    for job_id in ids:
        timeout = lab.client.get_job(job_id).configuration.job_timeout_ms
        assert int(timeout or 0) == 7_200_000
