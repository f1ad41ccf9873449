"""BigQuery's errors and their JSON.

https://cloud.google.com/bigquery/docs/error-messages
"""

from collections.abc import Mapping, Sequence
from typing import Any

_CODES: Mapping[str, int] = {
    "accessDenied": 403,
    "backendError": 503,
    "conditionNotMet": 412,
    "duplicate": 409,
    "internalError": 500,
    "notFound": 404,
    "notImplemented": 501,
    "quotaExceeded": 403,
    "rateLimitExceeded": 403,
    "stopped": 200,
}
"""HTTP status by reason; 400 for every other reason."""


class BigQueryError(Exception):
    """An error that is the answer to a call or the result of a job.

    Attributes:
        reason: BigQuery's error reason, like ``notFound``.
        message: human-readable text.
        location: the column, object or parameter that the error is about; may be empty.
        code: HTTP status, used if the error answers a call.
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
        """Return the ``ErrorProto``, as in a job's ``errorResult``."""
        proto = {"reason": self.reason, "message": self.message}
        if self.location:
            proto["location"] = self.location
        return proto

    def job_status(self) -> dict[str, Any]:
        """Return the ``status`` of a job that failed with this error."""
        errors = [self.proto(), *(detail.proto() for detail in self.details)]
        return {"state": "DONE", "errorResult": self.proto(), "errors": errors}

    def body(self) -> dict[str, Any]:
        """Return the JSON body of the answer to a call."""
        entry = self.proto() | {"domain": "global"}
        return {"error": {"code": self.code, "message": self.message, "errors": [entry]}}


def invalid(
    message: str, *, location: str = "", details: Sequence[BigQueryError] = ()
) -> BigQueryError:
    """Make the error of an invalid request or row."""
    return BigQueryError("invalid", message, location=location, details=details)


def invalid_query(message: str) -> BigQueryError:
    """Make the error of an invalid query."""
    return BigQueryError("invalidQuery", message, location="query")


def not_found(kind: str, name: object) -> BigQueryError:
    """Make the error of a missing resource.

    Args:
        kind: ``Dataset``, ``Table``, ``Job`` or ``URI``.
        name: its full name.
    """
    return BigQueryError("notFound", f"Not found: {kind} {name}")


def duplicate(kind: str, name: object) -> BigQueryError:
    """Make the error of a resource that already exists."""
    return BigQueryError("duplicate", f"Already Exists: {kind} {name}")


def not_implemented(feature: str) -> BigQueryError:
    """Make the error of a BigQuery feature that this server lacks."""
    return BigQueryError(
        "notImplemented", f"Not implemented by the local BigQuery: {feature} (see docs/design.md)"
    )


def refuse_keys(body: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    """Refuse a resource that sets unsupported properties.

    Args:
        body: the resource.
        keys: names of unsupported properties.
        where: the resource's name in the error.

    Raises:
        BigQueryError: a property is set.
    """
    for key in keys:
        if body.get(key):
            raise not_implemented(f"{key} of {where}")
