"""BigQuery's errors and their shapes.

https://cloud.google.com/bigquery/docs/error-messages
"""

from collections.abc import Mapping, Sequence
from typing import Any

_CODES: Mapping[str, int] = {
    "accessDenied": 403,
    "backendError": 503,
    "bytesBilledLimitExceeded": 400,
    "conditionNotMet": 412,
    "duplicate": 409,
    "internalError": 500,
    "invalid": 400,
    "invalidQuery": 400,
    "jobBackendError": 400,
    "jobInternalError": 400,
    "jobRateLimitExceeded": 400,
    "notFound": 404,
    "notImplemented": 501,
    "quotaExceeded": 403,
    "rateLimitExceeded": 403,
    "required": 400,
    "resourceInUse": 400,
    "resourcesExceeded": 400,
    "responseTooLarge": 403,
    "stopped": 200,
    "tableUnavailable": 400,
}
_STATUS = {
    400: "INVALID_ARGUMENT",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    412: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
}


class BigQueryError(Exception):
    """What BigQuery answers to a call, or puts into a job.

    Attributes:
        reason: BigQuery's one word.
        message: for people.
        location: the column, object or parameter it is about; empty: none.
        code: HTTP status, where it is the answer to a call.
        details: further entries of a failed job's ``errors``.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        location: str = "",
        code: int | None = None,
        details: Sequence["BigQueryError"] = (),
    ) -> None:
        super().__init__(message)
        self.reason, self.message, self.location = reason, message, location
        self.code = code or _CODES.get(reason, 400)
        self.details = tuple(details)

    def proto(self) -> dict[str, str]:
        """An ``ErrorProto``, as in a job's ``errorResult``."""
        proto = {"reason": self.reason, "message": self.message}
        if self.location:
            proto["location"] = self.location
        return proto

    def job_status(self) -> dict[str, Any]:
        """The ``status`` of a job that failed with this."""
        errors = [self.proto(), *(detail.proto() for detail in self.details)]
        return {"state": "DONE", "errorResult": self.proto(), "errors": errors}

    def body(self) -> dict[str, Any]:
        """The answer to a call."""
        entry = self.proto() | {"domain": "global"}
        return {
            "error": {
                "code": self.code,
                "message": self.message,
                "errors": [entry],
                "status": _STATUS.get(self.code, "UNKNOWN"),
            }
        }


def invalid(message: str, *, location: str = "") -> BigQueryError:
    """A request or a row that cannot be right."""
    return BigQueryError("invalid", message, location=location)


def invalid_query(message: str) -> BigQueryError:
    """A query that cannot be right."""
    return BigQueryError("invalidQuery", message, location="query")


def not_found(what: str, name: object) -> BigQueryError:
    """Something that is not there.

    Args:
        what: ``Dataset``, ``Table``, ``Job`` or ``URI``.
        name: its full name.
    """
    return BigQueryError("notFound", f"Not found: {what} {name}")


def duplicate(what: str, name: object) -> BigQueryError:
    """Something that is there already."""
    return BigQueryError("duplicate", f"Already Exists: {what} {name}")


def not_implemented(message: str) -> BigQueryError:
    """What BigQuery does and this server does not."""
    return BigQueryError("notImplemented", f"{message} (the local BigQuery does not do this)")
