"""Jobs: ids, states, listing, cancelling; and faults."""

import time
from typing import TYPE_CHECKING, Any

import pytest
import requests
from google.api_core.exceptions import (
    BadRequest,
    Conflict,
    GoogleAPICallError,
    InternalServerError,
    NotFound,
    ServiceUnavailable,
    TooManyRequests,
)
from google.cloud import bigquery

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


def test_a_jobs_id_is_used_once(lab: "Lab", row: Any) -> None:
    lab.table()
    name = f"mine-{lab.dataset}"
    config = bigquery.LoadJobConfig(source_format="NEWLINE_DELIMITED_JSON")
    uri = lab.put("a.jsonl", [row("a")])
    lab.client.load_table_from_uri(uri, lab.ref("t"), job_id=name, job_config=config).result()
    with pytest.raises(
        Conflict, match=f"Already Exists: Job {lab.client.project}:US.{name}"
    ) as told:
        lab.client.load_table_from_uri(uri, lab.ref("t"), job_id=name, job_config=config)
    assert told.value.errors[0]["reason"] == "duplicate"
    assert len(lab.rows("t")) == 1
    # A failed job keeps its id, too.
    with pytest.raises(BadRequest):
        lab.client.query("SELECT x", job_id=f"{name}-2", job_retry=None).result()
    assert lab.client.get_job(f"{name}-2").error_result is not None


def test_a_job_keeps_what_it_was_asked_for(lab: "Lab", row: Any) -> None:
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
    assert found.slot_millis is not None
    assert found.slot_millis >= 1
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


def test_jobs_are_listed_newest_first_and_by_state(lab: "Lab") -> None:
    lab.fault(job_type="query", labels={"hang": lab.dataset}, action="hang")
    done = lab.job("SELECT 1 AS a")
    done.result()
    hanging = lab.job("SELECT 1 AS a", labels={"hang": lab.dataset})
    names = [job.job_id for job in lab.client.list_jobs(max_results=2)]
    assert names == [hanging.job_id, done.job_id]
    running = {job.job_id for job in lab.client.list_jobs(state_filter="running")}
    assert hanging.job_id in running
    assert done.job_id not in running
    assert hanging.job_id not in {job.job_id for job in lab.client.list_jobs(state_filter="done")}
    later = lab.client.list_jobs(min_creation_time=hanging.created)
    assert [job.job_id for job in later] == [hanging.job_id]
    assert list(lab.client.list_jobs(parent_job=done.job_id)) == []
    lab.client.cancel_job(hanging.job_id)
    lab.client.delete_job_metadata(done.job_id)
    with pytest.raises(NotFound):
        lab.client.get_job(done.job_id)


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


def test_cancelling_a_job_that_has_ended_changes_nothing(lab: "Lab") -> None:
    job = lab.job("SELECT 1 AS a")
    job.result()
    job.cancel()
    assert (job.state, job.error_result) == ("DONE", None)


def test_a_job_of_no_or_of_two_kinds_is_refused(lab: "Lab") -> None:
    empty: dict[str, Any] = {}
    for configuration in (
        empty,
        {"query": {"query": "SELECT 1"}, "copy": empty},
        {"extract": empty},
    ):
        with pytest.raises(GoogleAPICallError):
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
def test_a_call_fails_as_often_as_it_should(
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
    assert requests.get(f"{lab.url}/faults", timeout=5).json() == []


def test_the_clients_own_retry_gets_over_a_fault(lab: "Lab") -> None:
    lab.fault(method="GET", path="/datasets/", action="error", status=503, reason="backendError")
    lab.client.get_dataset(lab.dataset)


def test_a_fault_may_leave_the_first_calls_alone(lab: "Lab") -> None:
    lab.fault(path="/datasets/", action="error", skip=1)
    lab.client.get_dataset(lab.dataset, retry=ONCE)
    with pytest.raises(ServiceUnavailable):
        lab.client.get_dataset(lab.dataset, retry=ONCE)


def test_a_connection_is_cut_after_the_job_was_accepted(lab: "Lab", row: Any) -> None:
    lab.table()
    name = f"cut-{lab.dataset}"
    lab.fault(job_type="load", job_id="^cut-", action="cut")
    config = bigquery.LoadJobConfig(source_format="NEWLINE_DELIMITED_JSON")
    uri = lab.put("a.jsonl", [row("a")])
    with pytest.raises(requests.exceptions.RequestException):
        lab.client.load_table_from_uri(
            uri, lab.ref("t"), job_id=name, job_config=config, retry=ONCE
        )
    lab.client.get_job(name).result()
    assert len(lab.rows("t")) == 1


def test_a_connection_is_cut_before_anything_is_done(lab: "Lab") -> None:
    name = f"before-{lab.dataset}"
    lab.fault(method="POST", path="/jobs$", action="cut_before")
    with pytest.raises(requests.exceptions.RequestException):
        lab.client.query("SELECT 1", job_id=name, retry=ONCE, job_retry=None)
    with pytest.raises(NotFound):
        lab.client.get_job(name)


def test_an_answer_is_lost(lab: "Lab") -> None:
    lab.fault(method="POST", path="/datasets$", action="cut")
    with pytest.raises(requests.exceptions.RequestException):
        lab.client.create_dataset(f"{lab.dataset}_lost", retry=ONCE)
    lab.client.delete_dataset(f"{lab.dataset}_lost")


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
        {"action": "error", "path": "x", "job_type": "load"},
        {"action": "error", "colour": "red"},
    ],
)
def test_what_is_no_fault_is_refused(lab: "Lab", fault: Any) -> None:
    assert requests.post(f"{lab.url}/faults", json=[fault], timeout=5).status_code == 400
    assert requests.get(f"{lab.url}/faults", timeout=5).json() == []
