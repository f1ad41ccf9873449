"""Convert results and exceptions of Google's client into those of `results` and `errors`."""

import datetime as dt
from typing import Any

import requests
from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import TransportError
from google.cloud import bigquery

from gardener_dagster.warehouse.errors import Failure
from gardener_dagster.warehouse.results import BqJob

AnyJob = bigquery.LoadJob | bigquery.CopyJob | bigquery.QueryJob


def describe(job: AnyJob, *, url: str, tries: int) -> BqJob:
    """Return the id, duration and cost of a finished job.

    Args:
        job: a load, copy or query job.
        url: URL of its page in the Google Cloud console.
        tries: number of jobs that were run until this one succeeded.
    """
    # `to_api_repr` omits the statistics, and the properties expose only some of them.
    statistics: dict[str, Any] = job._properties.get("statistics", {})
    own = statistics.get(job.job_type, {})
    read = own.get("inputFileBytes") or statistics.get("totalBytesProcessed") or 0
    return BqJob(
        id=str(job.job_id),
        kind=job.job_type,
        url=url,
        sql=job.query if isinstance(job, bigquery.QueryJob) else "",
        tries=tries,
        waiting_seconds=_seconds(job.created, job.started),
        running_seconds=_seconds(job.started, job.ended),
        slot_seconds=int(statistics.get("totalSlotMs") or own.get("totalSlotMs") or 0) / 1000,
        bytes_processed=int(read),
        bytes_billed=int(own.get("totalBytesBilled") or 0),
    )


def _seconds(start: dt.datetime | None, end: dt.datetime | None) -> float:
    return max(0.0, (end - start).total_seconds()) if start and end else 0.0


def failure_of(error: BaseException) -> Failure:
    """Convert an exception of the client to a `Failure`."""
    if not isinstance(error, GoogleAPICallError):
        return Failure(reason=type(error).__name__, message=str(error) or repr(error))
    first: dict[str, Any] = next(iter(error.errors), {}) if error.errors else {}
    return Failure(
        reason=str(first.get("reason", "")),
        message=str(first.get("message") or error.message or error),
        location=str(first.get("location", "")),
        code=int(error.code or 0),
    )


def is_transient(error: BaseException) -> bool:
    """Return whether an error is transient: the same call may succeed on a retry."""
    if isinstance(error, requests.exceptions.SSLError):
        return False  # an invalid certificate is permanent
    if isinstance(error, GoogleAPICallError):
        return failure_of(error).transient
    return isinstance(
        error,
        (
            ConnectionError,
            TransportError,
            requests.exceptions.ChunkedEncodingError,
            requests.exceptions.ConnectionError,
            requests.exceptions.Timeout,
        ),
    )
