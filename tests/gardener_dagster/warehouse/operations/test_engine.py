"""Retries, repeats, and errors that tell (D13, D14)."""

import datetime as dt
import gc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from google.cloud import bigquery

from gardener_dagster.warehouse.engine import Settings
from gardener_dagster.warehouse.errors import BigQueryFailure, RetriesExhausted, TimedOut

if TYPE_CHECKING:
    from tests.gardener_dagster.warehouse.operations.conftest import Lab

DATE = dt.date(2024, 3, 1)


@pytest.mark.parametrize(
    ("status", "reason"),
    [(429, ""), (403, "rateLimitExceeded"), (500, "internalError"), (503, "backendError")],
)
def test_d13_a_refused_call_is_tried_again(lab: "Lab", rows: Any, status: int, reason: str) -> None:
    source = lab.source({"a": [rows.ndt7("x")]})
    lab.faults.refuse(status, reason, method="GET", path=r"/tables/", times=2)
    lab.faults.refuse(status, reason, method="POST", path=r"/jobs$", times=2)
    assert lab.warehouse().load(lab.tables(), source, lab.context()).rows == 1


@pytest.mark.parametrize(
    "reason",
    ["rateLimitExceeded", "jobRateLimitExceeded", "quotaExceeded", "backendError", "internalError"],
)
def test_d13_a_job_that_failed_for_a_passing_reason_is_done_again(
    lab: "Lab", rows: Any, reason: str
) -> None:
    source = lab.source({"a": [rows.ndt7("x")]})
    lab.faults.fail_job("gardener-load", reason, times=2)
    result = lab.warehouse().load(lab.tables(), source, lab.context())
    assert result.rows == 1
    [job] = result.bq_jobs
    assert job.tries == 3
    assert len(set(lab.faults.job_ids())) == 3


def test_d13_the_streaming_buffer_passes(lab: "Lab", rows: Any) -> None:
    lab.load([rows.ndt7("x")] * 2)
    lab.faults.fail_job(
        "dedup-rewrite", "invalidQuery", "would affect rows in the streaming buffer"
    )
    assert lab.warehouse().dedup(lab.tables(), ("id",), lab.context()).rows == 1


def test_d13_retries_end_and_the_last_error_is_told(lab: "Lab", rows: Any) -> None:
    source = lab.source({"a": [rows.ndt7("x")]})
    lab.faults.fail_job("gardener-load", "rateLimitExceeded", "too many updates", times=10**6)
    with pytest.raises(RetriesExhausted) as caught:
        lab.warehouse(settings=lab.impatient).load(lab.tables(), source, lab.context())
    first = str(caught.value).splitlines()[0]
    for part in ("still failing", "too many updates", "[rateLimitExceeded]", "console.cloud"):
        assert part in first


def test_d13_a_refused_call_is_not_tried_for_ever(lab: "Lab", rows: Any) -> None:
    source = lab.source({"a": [rows.ndt7("x")]})
    lab.faults.refuse(503, "backendError", path=r"/jobs$", times=10**6, message="down")
    with pytest.raises(RetriesExhausted, match=r"still failing after 0.3 s: down"):
        lab.warehouse(settings=lab.impatient).load(lab.tables(), source, lab.context())


def test_d13_a_permanent_failure_is_not_tried_again(lab: "Lab", rows: Any) -> None:
    source = lab.source({"a": [rows.ndt7("x")]})
    lab.faults.fail_job("gardener-load", "accessDenied", "no access to x")
    with pytest.raises(BigQueryFailure, match=r"no access to x.*What to do: grant") as caught:
        lab.warehouse().load(lab.tables(), source, lab.context())
    assert not isinstance(caught.value, RetriesExhausted)
    assert len(lab.faults.job_ids()) == 1
    assert caught.value.bq_job_id in caught.value.bq_job_url


def test_d13_a_permanent_refusal_is_not_tried_again(lab: "Lab", rows: Any) -> None:
    source = lab.source({"a": [rows.ndt7("x")]})
    lab.faults.refuse(403, "accessDenied", path=r"/jobs$", message="no access to p")
    with pytest.raises(BigQueryFailure, match=r"no access to p"):
        lab.warehouse().load(lab.tables(), source, lab.context())
    assert len(lab.faults.job_ids()) == 1


def test_a_connection_that_is_cut_before_the_server_heard_is_made_again(
    lab: "Lab", rows: Any
) -> None:
    source = lab.source({"a": [rows.ndt7("x")]})
    for method in ("GET", "POST"):
        lab.faults.cut(method=method, path=r"/projects/", before=True, times=2)
    assert lab.warehouse().load(lab.tables(), source, lab.context()).rows == 1


def test_a_connection_that_is_cut_after_the_job_was_accepted_finds_the_job(
    lab: "Lab", rows: Any
) -> None:
    source = lab.source({"a": [rows.ndt7("x")]})
    lab.faults.cut(method="POST", path=r"/jobs$", job="gardener-load")
    result = lab.warehouse().load(lab.tables(), source, lab.context())
    assert result.rows == 1
    assert len(set(lab.faults.job_ids())) == 1
    assert len(lab.faults.job_ids()) == 2


OPERATIONS: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
    "load": lambda w, t, c, source: w.load(t, source, c),
    "dedup": lambda w, t, c, _: w.dedup(t, ("id",), c),
    "copy": lambda w, t, c, _: w.copy(t, c, parse_had_no_files=False),
    "delete": lambda w, t, c, _: w.delete(t, c),
    "join": lambda w, t, c, _: w.join(t, c, annotations_known_empty=True),
}


def test_a_repeat_of_everything_leaves_the_tables_as_they_are(lab: "Lab", rows: Any) -> None:
    source = lab.source({"a": [rows.ndt7("x"), rows.ndt7("x"), rows.ndt7("y")]})
    ctx, tables = lab.context(), lab.tables()
    first = [do(lab.warehouse(), tables, ctx, source) for do in OPERATIONS.values()]
    again = [do(lab.warehouse(), tables, ctx, source) for do in OPERATIONS.values()]
    assert [result.rows for result in again] == [result.rows for result in first]
    assert lab.ids(tables.raw_partition(DATE)) == ["x", "y"]
    assert lab.ids(tables.joined_partition(DATE)) == ["x", "y"]
    assert lab.rows(tables.tmp_partition(DATE)) == []


def test_another_attempt_does_the_work_anew(lab: "Lab", rows: Any) -> None:
    ctx = lab.context()
    first = lab.warehouse().load(lab.tables(), lab.source({"a": [rows.ndt7("x")]}), ctx)
    retry = type(ctx)(run_id=ctx.run_id, date=ctx.date, attempt=2)
    second = lab.warehouse().load(lab.tables(), lab.source({"a": [rows.ndt7("y")]}), retry)
    assert first.bq_job_ids != second.bq_job_ids
    assert lab.ids(lab.tables().tmp_partition(DATE)) == ["y"]


def test_a_job_that_hangs_is_cancelled_and_told(lab: "Lab", rows: Any) -> None:
    source = lab.source({"a": [rows.ndt7("x")]})
    seconds = iter(range(0, 10**9, 3600))
    warehouse = lab.warehouse(sleep=lambda _: None, clock=lambda: float(next(seconds)))
    lab.faults.hang_job("gardener-load")
    with pytest.raises(TimedOut, match=r"not done after 6:00:00, so it was cancelled"):
        warehouse.load(lab.tables(), source, lab.context())
    assert any(str(r.path_url).split("?")[0].endswith("/cancel") for r in lab.faults.seen)


def test_priority_and_limit_of_queries(lab: "Lab", rows: Any) -> None:
    lab.load([rows.ndt7("x")])
    settings = Settings(maximum_bytes_billed=123_000_000)
    result = lab.warehouse(settings=settings).dedup(lab.tables(), ("id",), lab.context())
    job = lab.client.get_job(result.bq_job_ids[0])
    assert isinstance(job, bigquery.QueryJob)
    assert job.priority == "BATCH"
    assert job.maximum_bytes_billed == 123_000_000


def test_d14_values_are_parameters_of_the_query(lab: "Lab", rows: Any) -> None:
    lab.load([rows.ndt7("x")] * 2)
    result = lab.warehouse().dedup(lab.tables(), ("id",), lab.context())
    assert len(result.bq_jobs) == 3
    for done in result.bq_jobs:
        job = lab.client.get_job(done.id)
        assert isinstance(job, bigquery.QueryJob)
        assert [(p.name, p.value) for p in job.query_parameters] == [("date", DATE)]
        assert "2024" not in job.query


def test_d14_a_warehouse_makes_no_client_of_its_own(lab: "Lab", rows: Any) -> None:
    def clients() -> int:
        return sum(isinstance(thing, bigquery.Client) for thing in gc.get_objects())

    source, before = lab.source({"a": [rows.ndt7("x")]}), clients()
    ctx, tables, warehouse = lab.context(), lab.tables(), lab.warehouse()
    for do in OPERATIONS.values():
        do(warehouse, tables, ctx, source)
        assert clients() == before
