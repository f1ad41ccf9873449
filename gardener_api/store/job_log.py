"""Log what happens to jobs: a line for each event, and for each refused call.

Callers log after their commit, so that every logged change is committed.
"""

import logging
from collections.abc import Iterable

from gardener_api.jobs.job import LEASE_EXPIRED, PARSE_ERROR, Change, Event, Job, JobState
from gardener_api.jobs.parser_calls import BadState, Gone, Refusal

log = logging.getLogger(__name__)

_WORDS = {
    JobState.INIT: "handed out",
    PARSE_ERROR: "attempt failed",
    LEASE_EXPIRED: "lease expired",
}
"""Messages for the states and events whose names do not say what happened."""
_LEVELS = {
    PARSE_ERROR: logging.WARNING,
    LEASE_EXPIRED: logging.WARNING,
    JobState.FAILED: logging.ERROR,
}


def tell(changes: Iterable[Change]) -> None:
    """Log the events of changes."""
    for change in changes:
        for event in change.events:
            level = _LEVELS.get(event.state, logging.INFO)
            if log.isEnabledFor(level):
                log.log(
                    level, _WORDS.get(event.state, event.state), extra=_about(change.job, event)
                )


def tell_refusals(answers: Iterable[Job | Refusal]) -> None:
    """Log the calls that named a job and were refused."""
    for answer in answers:
        match answer:
            case Gone():
                log.info("refused a late call", extra={"job": answer.id})
            case BadState():
                about = {"job": answer.id, "state": answer.state, "reason": answer.reason}
                log.info("refused a state", extra=about)


def _about(job: Job, event: Event) -> dict[str, object]:
    about: dict[str, object] = {"job": job.attempt_id(event.attempt)}
    if event.left:
        about |= {"left": event.left, "seconds": round(event.seconds, 3)}
    if job.parser:
        about["parser"] = job.parser
    if job.run_id:
        about["run"] = job.run_id
    if event.detail:
        about["detail"] = event.detail
    return about
