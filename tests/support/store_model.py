"""A job and its wishes in plain Python: what the store is compared with."""

import datetime as dt
from dataclasses import dataclass, field
from typing import Any

from gardener_api.jobs.job import Job, JobKey

MAX_ATTEMPTS = 2
STAGES = ("loading", "deduplicating", "copying", "deleting", "joining")
ENDED = ("complete", "failed", "withdrawn")


@dataclass
class Wish:
    """What a requester wants, as the run wants it that asked last."""

    run_id: str
    asked: dt.datetime
    reported: bool = False
    withdrawn: bool = False
    withdrawn_by: str = ""


@dataclass
class Model:
    """A job as it should be."""

    key: JobKey
    generation: int
    priority: int
    state: str
    attempt: int = 1
    detail: str = ""
    error: str = ""
    failed_in: str | None = None
    parser: str = ""
    run_id: str = ""
    expires: dt.datetime | None = None
    handed_out: bool = False
    parsed: bool = False
    had_ended: bool = False
    reported: bool = False
    wishes: dict[str, Wish] = field(default_factory=dict)

    @property
    def id(self) -> str:
        first = self.generation == 1 and self.attempt == 1
        return str(self.key) if first else f"{self.key}~{self.generation}.{self.attempt}"

    @property
    def wanted(self) -> bool:
        return any(not wish.withdrawn for wish in self.wishes.values())

    def takes(self, state: str) -> bool:
        """Whether a run that does not have it may take it there: none joins what is not in raw."""
        if state == "complete":
            return self.state in ("joining", "complete")
        in_raw = self.state in ("joining", "complete") or self.failed_in in ("deleting", "joining")
        return state != "joining" or in_raw

    def enter(self, state: str, detail: str = "") -> None:
        self.state, self.detail = state, detail
        self.had_ended |= state in ENDED

    def end_attempt(self, error: str) -> None:
        self.error, self.expires = error, None
        if self.attempt == MAX_ATTEMPTS:
            self.failed_in = self.state
            self.enter("failed", self.detail)
        else:
            self.attempt += 1
            self.parser, self.handed_out = "", False
            self.enter("queued")
            if not self.wanted:
                self.enter("withdrawn", "no request for it is left")


def described(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "state": job.state.value,
        "attempt": job.attempt,
        "priority": job.priority.value,
        "detail": job.detail,
        "error": job.error,
        "failed_in": job.failed_in.value if job.failed_in else None,
        "parser": job.parser,
        "run_id": job.run_id,
        "expires": job.lease_expires,
        "parsed": job.parsed is not None,
        "had_ended": job.ended is not None,
    }
