"""The observations that Dagster gets of a job while a parser has it. Pure.

They are observations of the job's partition of the asset ``parsed/<source>``. A finished parse is
not among them: a Dagster run reports it as a materialization.
"""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, replace

from gardener_api.jobs.job import (
    LEASE_EXPIRED,
    PARSE_ERROR,
    PARSING_STATES,
    Change,
    Event,
    Job,
    JobKey,
    JobState,
)

_ENDINGS = {LEASE_EXPIRED: "its lease ended", PARSE_ERROR: "its parser reported an error"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """An observation of a partition of a ``parsed`` asset."""

    key: JobKey
    at: dt.datetime
    description: str
    metadata: dict[str, str | int]  # by the label shown in Dagster


def observations(changes: Iterable[Change]) -> list[Observation]:
    """Return the observations of these changes: handouts, lost attempts, failed parses."""
    return [
        observation
        for change in changes
        for event in change.events
        if (observation := _observation(change.job, event)) is not None
    ]


def _observation(job: Job, event: Event) -> Observation | None:
    observation = Observation(
        key=job.key,
        at=event.at,
        description="",
        metadata={
            "state": event.state,
            "attempt": event.attempt,
            "parse": job.generation,
            "job": job.number,
            "time": f"{event.at:%Y-%m-%d %H:%M:%S} UTC",
        },
    )
    if event.state == JobState.INIT:
        parser = job.parser or "unknown"
        return replace(
            observation,
            description=f"Attempt {event.attempt} handed out to parser {parser}",
            metadata=observation.metadata | {"parser": parser},
        )
    if event.state in _ENDINGS:
        description = f"Attempt {event.attempt} lost: {_ENDINGS[event.state]}"
    elif event.state == JobState.FAILED and job.failed_in in PARSING_STATES:
        description = f"Parse failed in attempt {event.attempt}, the last one"
    else:
        return None
    return replace(
        observation,
        description=description,
        metadata=observation.metadata | {"reason": event.detail or "none given"},
    )
