"""Errors of the warehouse: the first line of each says what failed and what to do.

The module also defines which BigQuery errors are transient. No google imports.
https://cloud.google.com/bigquery/docs/error-messages
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TRANSIENT_REASONS = frozenset(
    {
        "backendError",
        "badGateway",
        "internalError",
        "jobBackendError",
        "jobInternalError",
        "jobRateLimitExceeded",
        "quotaExceeded",  # short-term and daily quotas; the retry timeout ends the latter
        "rateLimitExceeded",
        "tableUnavailable",
    }
)
TRANSIENT_CODES = frozenset({408, 429, 500, 502, 503, 504})
_TRANSIENT_MESSAGE = re.compile(
    r"streaming buffer|concurrent update|retrying (?:the job )?may solve", re.I
)
_NEW_FIELD = re.compile(r"No such field: (?P<field>[\w.]+?)\.?(?:[\s,;]|$)")
_WRONG_DATE = re.compile(r"rows belong to different partitions", re.I)
_OBJECT = re.compile(r"gs://[^\s,;\"']+[^\s,;\"'.]")
_MESSAGE_MAXIMUM = 600

_ADVICE = {
    "accessDenied": "grant the account the roles BigQuery Data Editor and BigQuery Job User",
    "billingNotEnabled": "enable billing for the project",
    "billingTierLimitExceeded": "raise maximum_bytes_billed",
    "bytesBilledLimitExceeded": "raise maximum_bytes_billed, or see why the query reads so much",
    "invalid": "see the named object (`gcloud storage cat`), then materialize parsed/… of the date",
    "notFound": "see whether what is named is gone or in another location, then re-execute the run",
    "quotaExceeded": "wait for the quota to renew or ask for more, then re-execute the run",
    "rateLimitExceeded": "re-execute the run when fewer jobs work on the same table",
    "resourcesExceeded": "split the date's archives, or re-execute the run at a quieter time",
    "stopped": "somebody cancelled the job in BigQuery; re-execute the run",
}


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The error of a BigQuery job or API call, as BigQuery reports it.

    Attributes:
        reason: BigQuery's error reason, such as `notFound`.
        location: the object or column that BigQuery names; empty: none.
    """

    reason: str
    message: str
    location: str = ""
    code: int = 0

    @staticmethod
    def of(error: Mapping[str, Any], others: Sequence[Mapping[str, Any]] = ()) -> "Failure":
        """Convert a job's `errorResult` and `errors`; prefer a specific message.

        The `errorResult` of a failed load often says only that there were too many errors.
        """
        telling = [entry for entry in others if "giving up" not in str(entry.get("message"))]
        best = telling[0] if telling else error
        return Failure(
            reason=str(error.get("reason", "")),
            message=str(best.get("message", "")),
            location=str(best.get("location", "")),
        )

    @property
    def transient(self) -> bool:
        """Whether a retry may succeed."""
        return bool(
            self.reason in TRANSIENT_REASONS
            or self.code in TRANSIENT_CODES
            or _TRANSIENT_MESSAGE.search(self.message)
        )

    @property
    def new_field(self) -> str:
        """The field that the table lacks; empty: the error has another cause."""
        match = _NEW_FIELD.search(self.message)
        return match["field"] if match else ""

    @property
    def wrong_date(self) -> bool:
        """Whether rows of another date caused the error."""
        return bool(_WRONG_DATE.search(self.message))

    @property
    def object(self) -> str:
        """The object that BigQuery names as the cause, as a gs:// URL; empty: none."""
        match = _OBJECT.search(f"{self.location} {self.message}")
        return match[0] if match else ""


class WarehouseError(Exception):
    """A table operation failed. Of these errors, only `RetriesExhausted` is transient.

    Attributes:
        operation: load, dedup, copy, delete, join, or another one such as diff.
        table: the table or partition.
        bq_job_id: id of the BigQuery job; empty: no job was involved.
        bq_job_url: URL of its page in the Google Cloud console.
        reason: BigQuery's error reason; empty: BigQuery reported no error.
        advice: what the operator should do.
    """

    def __init__(
        self,
        message: str,
        *,
        operation: str,
        table: str,
        advice: str,
        reason: str = "",
        bq_job_id: str = "",
        bq_job_url: str = "",
    ) -> None:
        self.operation, self.table, self.advice, self.reason = operation, table, advice, reason
        self.bq_job_id, self.bq_job_url = bq_job_id, bq_job_url
        self.message = " ".join(message.split())[:_MESSAGE_MAXIMUM]
        said = f"{operation} {table}: {self.message}" + (f" [{reason}]" if reason else "")
        where = f" BigQuery job {bq_job_id} ({bq_job_url})." if bq_job_id else ""
        super().__init__(f"{said.rstrip('.')}.{where} What to do: {advice}.")


class BigQueryFailure(WarehouseError):
    """BigQuery refused a call, or a BigQuery job failed.

    Attributes:
        failure: the error that BigQuery reported.
    """

    def __init__(
        self,
        failure: Failure,
        *,
        operation: str,
        table: str,
        bq_job_id: str = "",
        bq_job_url: str = "",
        advice: str = "",
        prefix: str = "",
    ) -> None:
        self.failure = failure
        message = prefix + failure.message
        if failure.object and failure.object not in message:
            message += f" Object: {failure.object}"
        super().__init__(
            message,
            operation=operation,
            table=table,
            reason=failure.reason or str(failure.code or ""),
            advice=advice
            or _ADVICE.get(
                failure.reason, "read BigQuery's message, mend its cause, and re-execute the run"
            ),
            bq_job_id=bq_job_id,
            bq_job_url=bq_job_url,
        )


class RetriesExhausted(BigQueryFailure):
    """A transient error outlasted all retries; a later retry may succeed."""


class TimedOut(WarehouseError):
    """A BigQuery job did not end in time; it was cancelled."""


class NewField(WarehouseError):
    """The data has a field that the table lacks.

    Attributes:
        field: its path, like `raw.Download.Foo`.
        object: URL of an object with the field; empty: unknown.
    """

    def __init__(
        self, field: str, object_url: str, *, detail: str = "", advice: str, cause: BigQueryFailure
    ) -> None:
        self.field, self.object = field, object_url
        super().__init__(
            f"{object_url or 'an object'} has the field {field}, which the table has not{detail}",
            operation=cause.operation,
            table=cause.table,
            reason=cause.reason,
            advice=advice,
            bq_job_id=cause.bq_job_id,
            bq_job_url=cause.bq_job_url,
        )


class WrongDate(WarehouseError):
    """Rows that are loaded into a partition have another date.

    Attributes:
        rows: number of rows of another date.
        object: URL of an object with such rows.
    """

    def __init__(
        self, *, rows: int, dates: str, archive: str, object_url: str, cause: BigQueryFailure
    ) -> None:
        self.rows, self.object = rows, object_url
        super().__init__(
            f"{rows:,} rows are of another date ({dates}), for example in {object_url}",
            operation=cause.operation,
            table=cause.table,
            reason=cause.reason,
            advice=f"see why the parser gives rows of {archive} another date than its path has,"
            " then parse the date again",
            bq_job_id=cause.bq_job_id,
            bq_job_url=cause.bq_job_url,
        )


class TooManyObjects(WarehouseError):
    """The objects to load need more URIs than one load job accepts."""


class ObjectsChanged(WarehouseError):
    """BigQuery loaded other objects than the chosen ones; the tmp partition was deleted."""


class RefusedCopy(WarehouseError):
    """The raw partition was not replaced, because the tmp partition has no rows."""


class AnnotationsMissing(WarehouseError):
    """The annotations of the date have not been made.

    Attributes:
        partition: the missing annotations partition.
    """

    def __init__(self, message: str, *, partition: str, table: str, advice: str) -> None:
        self.partition = partition
        super().__init__(message, operation="join", table=table, advice=advice)


class RefusedJoin(WarehouseError):
    """The joined partition was not emptied, although its raw partition has no rows."""


class WrongRowCount(WarehouseError):
    """The joined and the raw partition have different numbers of rows."""
