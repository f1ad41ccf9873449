"""BigQuery's errors, as BigQuery words them, and what is made of them."""

import pytest

from gardener_dagster.warehouse.errors import BigQueryFailure, Failure, NewField

TOO_MANY = {
    "reason": "invalid",
    "message": "Error while reading data, error message: JSON table encountered too many errors,"
    " giving up. Rows: 1; errors: 1. Please look into the errors[] collection for more details.",
    "location": "gs://out/archives/ndt/x.tgz.jsonl",
}
NO_FIELD = {
    "reason": "invalid",
    "location": "gs://out/archives/ndt/x.tgz.jsonl",
    "message": "Error while reading data, error message: JSON parsing error in row starting at"
    " position 0: No such field: raw.Download.Jitter. File: gs://out/archives/ndt/x.tgz.jsonl",
}


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ("position 19599: No such field: line_items.properties.", "line_items.properties"),
        ("No such field: foo. File: gs://b/o.jsonl", "foo"),
        ("No such field: foo", "foo"),
        ("No such field: a.b_c.D, giving up", "a.b_c.D"),
        ("Could not parse '2024-13-01' as DATE for field date", ""),
    ],
)
def test_the_new_field_is_read_from_the_message(message: str, field: str) -> None:
    assert Failure(reason="invalid", message=message).new_field == field


@pytest.mark.parametrize(
    ("location", "message", "found"),
    [
        ("gs://b/o.jsonl", "No such field: x.", "gs://b/o.jsonl"),
        ("", "No such field: x. File: gs://b/o.jsonl", "gs://b/o.jsonl"),
        ("", "while reading gs://b/o.jsonl, giving up", "gs://b/o.jsonl"),
        ("", "nothing", ""),
    ],
)
def test_the_object_is_read_from_location_or_message(
    location: str, message: str, found: str
) -> None:
    assert Failure(reason="invalid", message=message, location=location).object == found


@pytest.mark.parametrize(
    "failure",
    [
        Failure(reason="rateLimitExceeded", message="Exceeded rate limits: too many table updates"),
        Failure(reason="jobRateLimitExceeded", message="x"),
        Failure(reason="quotaExceeded", message="Quota exceeded: too many concurrent queries"),
        Failure(reason="backendError", message="Error encountered during execution."),
        Failure(reason="internalError", message="x"),
        Failure(reason="", message="Service Unavailable", code=503),
        Failure(reason="", message="Too Many Requests", code=429),
        Failure(reason="invalidQuery", message="would affect rows in the streaming buffer"),
    ],
)
def test_what_is_transient(failure: Failure) -> None:
    assert failure.transient


@pytest.mark.parametrize(
    "failure",
    [
        Failure(reason="invalid", message="No such field: x."),
        Failure(reason="invalidQuery", message="Unrecognized name: x at [1:8]", code=400),
        Failure(reason="notFound", message="Not found: Table p:d.t", code=404),
        Failure(reason="accessDenied", message="Access Denied", code=403),
        Failure(reason="bytesBilledLimitExceeded", message="Query exceeded limit", code=400),
        Failure(reason="stopped", message="Job execution was cancelled"),
    ],
)
def test_what_does_not(failure: Failure) -> None:
    assert not failure.transient


def test_d13_the_first_line_says_what_where_why_and_what_to_do() -> None:
    failure = Failure.of(TOO_MANY, [TOO_MANY, NO_FIELD])
    cause = BigQueryFailure(
        failure,
        operation="load",
        table="tmp_ndt.ndt7$20240301",
        bq_job_id="gardener-load-1",
        bq_job_url="https://console/x",
    )
    error = NewField(failure.new_field, failure.object, advice="add it", cause=cause)
    first, *rest = str(error).splitlines()
    assert rest == []
    for part in (
        "load",
        "tmp_ndt.ndt7$20240301",
        "raw.Download.Jitter",
        "gs://out/archives/ndt/x.tgz.jsonl",
        "[invalid]",
        "gardener-load-1",
        "https://console/x",
        "What to do: add it.",
    ):
        assert part in first


def test_a_message_of_many_lines_and_great_length_stays_one_line() -> None:
    failure = Failure(reason="invalidQuery", message="bad\n" + "x" * 5000)
    error = BigQueryFailure(failure, operation="join", table="t")
    assert "\n" not in str(error)
    assert len(str(error)) < 1000
