"""What tests make go wrong: calls that fail, connections that are cut, jobs that hang or fail.

Reachable only where the server was started with faults enabled: ``POST /faults`` a list, ``GET``,
``DELETE``. Each fault names what it matches and how often.
"""

import re
import threading
from dataclasses import dataclass, field
from typing import Any

from gardener_dagster.local.bigquery.errors import BigQueryError

Resource = dict[str, Any]

ACTIONS = ("error", "cut", "cut_after", "job_error", "job_hang")


@dataclass(kw_only=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        action: ``error`` (the call fails), ``cut`` (the connection is cut before anything is done),
            ``cut_after`` (it is cut when all is done), ``job_error`` (the job fails when it starts),
            ``job_hang`` (the job runs until it is cancelled).
        match: Regular expression over ``METHOD path``, for a job over
            ``<kind> <job id> <label>=<value> …``.
        times: How often still.
        reason: BigQuery's, for errors.
        message: BigQuery's, for errors.
        code: HTTP status of an ``error``; 0: what BigQuery gives the reason.
    """

    action: str
    match: str
    times: int = 1
    reason: str = "backendError"
    message: str = "injected by a test"
    code: int = 0

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise BigQueryError("invalid", f"action: {self.action!r}: expected one of {ACTIONS}")
        re.compile(self.match)

    @property
    def error(self) -> BigQueryError:
        """The error to answer with."""
        return BigQueryError(self.reason, self.message, code=self.code or None)


@dataclass
class Faults:
    """The faults that are still to happen."""

    pending: list[Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, items: list[Resource]) -> None:
        """Adds faults, by their attributes."""
        made = [Fault(**item) for item in items]
        with self._lock:
            self.pending += made

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        with self._lock:
            self.pending.clear()

    def take(self, text: str, *actions: str) -> Fault | None:
        """The first fault of these actions that matches; it is used up by one."""
        with self._lock:
            for fault in self.pending:
                if fault.action in actions and re.search(fault.match, text):
                    fault.times -= 1
                    if fault.times <= 0:
                        self.pending.remove(fault)
                    return fault
        return None
