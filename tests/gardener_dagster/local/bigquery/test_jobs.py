"""Jobs: ids, states, cancelling; and faults."""

import datetime as dt
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from google.api_core.exceptions import (
    BadRequest,
    Conflict,
    GoogleAPICallError,
    InternalServerError,
    MethodNotImplemented,
    NotFound,
    ServiceUnavailable,
    TooManyRequests,
)
from google.cloud import bigquery

from gardener_dagster.local.bigquery.catalog.catalog import Catalog
from gardener_dagster.local.bigquery.catalog.database import Database
from gardener_dagster.local.bigquery.errors import BigQueryError
from gardener_dagster.local.bigquery.jobs.job_log import JobLog
from gardener_dagster.local.bigquery.jobs.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.gardener_dagster.local.bigquery.conftest import Lab

ONCE: Any = None
"""No retries: the client takes None, its types do not."""


def until(condition: "Callable[[], bool]") -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_id_is_used_once(lab: "Lab") -> None:
    name = f"mine-{lab.dataset}"
    lab.client.query("SELECT 1 AS a", job_id=name, job_retry=None).result()
    with pytest.raises(
        Conflict, match=f"Already Exists: Job {lab.client.project}:US.{name}"
    ) as told:
        lab.client.query("SELECT 1 AS a", job_id=name, job_retry=None)
    assert told.value.errors[0]["reason"] == "duplicate"
    # A failed job keeps its id, too.
    with pytest.raises(BadRequest):
        lab.client.query("SELECT x", job_id=f"{name}-2", job_retry=None).result()
    assert lab.client.get_job(f"{name}-2").error_result is not None


def test_a_job_keeps_its_configuration_and_statistics(lab: "Lab", row: Any) -> None:
    lab.table()
    lab.fill("t$20240301", [row("a")])
    job = lab.job("SELECT id FROM t WHERE date = '2024-03-01'", labels={"k": "v"}, priority="BATCH")
    job.result()
    found = lab.client.get_job(job.job_id)
    assert isinstance(found, bigquery.QueryJob)
    assert (found.labels, found.priority, found.query) == ({"k": "v"}, "BATCH", job.query)
    assert (found.state, found.statement_type, found.cache_hit) == ("DONE", "SELECT", False)
    assert found.created is not None
    assert found.started is not None
    assert found.ended is not None
    assert found.created <= found.started <= found.ended
    assert int(found._properties["statistics"]["totalSlotMs"]) >= 1
    assert [str(table) for table in found.referenced_tables] == [
        f"{lab.client.project}.{lab.dataset}.t"
    ]
    with pytest.raises(NotFound, match="Not found: Job"):
        lab.client.get_job("never")


def test_a_job_is_pending_then_running_then_done(lab: "Lab") -> None:
    lab.fault(job_type="query", action="delay", seconds=0.7)
    job = lab.job("SELECT 1 AS a")
    states = [job.state]

    def done() -> bool:
        job.reload()
        states.append(job.state)
        return bool(job.state == "DONE")

    until(done)
    assert states[0] == "PENDING"
    assert states == sorted(states, key=["PENDING", "RUNNING", "DONE"].index)
    assert [row.a for row in job.result()] == [1]


def test_jobs_that_have_not_ended_are_listed(lab: "Lab") -> None:
    lab.fault(job_type="query", action="hang")
    hanging = lab.job("SELECT 1 AS a", labels={"k": "v"})
    lab.fault(job_type="query", action="delay", seconds=60)
    waiting = lab.job("SELECT 1 AS a")

    def listed(state: str) -> dict[str, dict[str, str]]:
        return {job.job_id: job.labels for job in lab.client.list_jobs(state_filter=state)}

    assert listed("running") == {hanging.job_id: {"k": "v"}}
    assert listed("pending") == {waiting.job_id: {}}
    hanging.cancel()
    assert listed("running") == {}
    with pytest.raises(MethodNotImplemented, match="another stateFilter"):
        list(lab.client.list_jobs())


def test_a_running_query_is_cancelled(lab: "Lab") -> None:
    numbers = "UNNEST(GENERATE_ARRAY(1, 200000))"
    job = lab.job(f"SELECT SUM(a * b) AS s FROM {numbers} AS a, {numbers} AS b")  # noqa: S608

    def running() -> bool:
        return bool(lab.client.get_job(job.job_id).state == "RUNNING")

    until(running)
    job.cancel()
    with pytest.raises(GoogleAPICallError, match="Job execution was cancelled"):
        job.result()
    job.reload()
    assert (job.state, job.error_result["reason"]) == ("DONE", "stopped")


def test_a_job_that_is_stopped_between_two_statements_stops(tmp_path: Path) -> None:
    database = Database(tmp_path)
    task = Task(
        {},
        database=database,
        catalog=Catalog(),
        log=JobLog(database),
        now=lambda: dt.datetime.now(dt.UTC),
    )

    def work() -> None:
        with database.cursor() as cursor, task.cancellable(cursor):
            task.stop(BigQueryError("stopped", "enough"))
            cursor.execute("SELECT sum(a.range * b.range) FROM range(200_000) a, range(200_000) b")

    with pytest.raises(BigQueryError, match="enough"):
        work()
    database.close()


def test_cancelling_a_job_that_has_ended_changes_nothing(lab: "Lab") -> None:
    job = lab.job("SELECT 1 AS a")
    job.result()
    job.cancel()
    assert (job.state, job.error_result) == ("DONE", None)


@pytest.mark.parametrize(
    "configuration", [{}, {"query": {"query": "SELECT 1"}, "copy": {}}, {"query": {}}]
)
def test_a_job_has_one_kind_with_its_parameters(lab: "Lab", configuration: Any) -> None:
    with pytest.raises(BadRequest):
        lab.client._connection.api_request(
            method="POST",
            path=f"/projects/{lab.client.project}/jobs",
            data={"configuration": configuration},
        )


# -- faults


@pytest.mark.parametrize(
    ("status", "reason", "error"),
    [
        (429, "rateLimitExceeded", TooManyRequests),
        (500, "internalError", InternalServerError),
        (503, "backendError", ServiceUnavailable),
    ],
)
def test_a_call_fails_the_given_number_of_times(
    lab: "Lab", status: int, reason: str, error: type[GoogleAPICallError]
) -> None:
    lab.fault(
        method="GET", path=r"/datasets/\w+$", action="error", status=status, reason=reason, times=2
    )
    for _ in range(2):
        with pytest.raises(error) as raised:
            lab.client.get_dataset(lab.dataset, retry=ONCE)
        assert raised.value.errors[0]["reason"] == reason
    lab.client.get_dataset(lab.dataset, retry=ONCE)


def test_a_job_is_accepted_and_fails(lab: "Lab", row: Any) -> None:
    lab.table()
    lab.fault(
        job_type="load",
        labels={"a": "b"},
        action="job_error",
        reason="backendError",
        message="try again",
    )
    other = lab.fill("t$20240301", [row("a")])
    assert other.error_result is None
    job = lab.begin_load(lab.put("b.jsonl", [row("b")]), "t$20240301", labels={"a": "b", "c": "d"})
    with pytest.raises(GoogleAPICallError, match="try again"):
        job.result()
    assert job.error_result == {"reason": "backendError", "message": "try again"}
    assert [one["id"] for one in lab.rows("t")] == ["a"]


def test_a_job_hangs_until_it_is_cancelled(lab: "Lab") -> None:
    lab.fault(job_type="query", action="hang")
    job = lab.job("SELECT 1 AS a")
    assert lab.client.get_job(job.job_id).state == "RUNNING"
    job.cancel()
    assert (job.state, job.error_result["reason"]) == ("DONE", "stopped")


@pytest.mark.parametrize(
    "fault",
    [
        {},
        {"action": "explode"},
        {"action": "hang"},
        {"action": "error", "path": "("},
        {"action": "error", "job_type": "load"},
        {"action": "error", "colour": "red"},
    ],
)
def test_an_invalid_fault_is_refused(lab: "Lab", fault: Any) -> None:
    assert requests.post(f"{lab.url}/faults", json=[fault], timeout=5).status_code == 400
