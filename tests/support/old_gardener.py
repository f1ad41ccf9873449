"""Saved states of the old gardener, as its tracker writes them, for tests of the import."""

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BEGUN = dt.datetime(2024, 3, 2, 11, tzinfo=dt.UTC)
SAVED = "2024-03-02T12:00:00.586307-04:00"
NEVER = "0001-01-01T00:00:00Z"
LIFE = (
    "init",
    "parsing",
    "postProcessing",
    "loading",
    "deduplicating",
    "copying",
    "deleting",
    "joining",
    "complete",
)
"""The states of a job that goes well, in their order."""


def history(*states: str, detail: str = "") -> list[dict[str, str]]:
    """A job's states, ten minutes each; the detail is the last one's."""
    entries = []
    for i, state in enumerate(states):
        at = (BEGUN + dt.timedelta(minutes=10 * i)).isoformat().replace("+00:00", "Z")
        last = i == len(states) - 1
        entries.append(
            {"State": state, "Start": at, "DetailTime": at, "Detail": detail if last else ""}
        )
    return entries


def saved_state(jobs: Mapping[str, Sequence[dict[str, str]]]) -> dict[str, Any]:
    """The content of a file.

    Args:
        jobs: By key, ``bucket/experiment/datatype/YYYYMMDD``, the history.
    """
    return {
        "SaveTime": SAVED,
        "Statuses": {
            key: {"HeartbeatTime": NEVER, "UpdateCount": len(entries), "History": list(entries)}
            for key, entries in jobs.items()
        },
        "Jobs": {key: _job(key) for key in jobs},
    }


def write_saved_state(path: Path, jobs: Mapping[str, Sequence[dict[str, str]]]) -> Path:
    """Write a file as the old gardener does; its path."""
    path.write_text(json.dumps(saved_state(jobs)), encoding="utf-8")
    return path


def _job(key: str) -> dict[str, str]:
    bucket, experiment, datatype, day = key.split("/")
    return {
        "Bucket": bucket,
        "Experiment": experiment,
        "Datatype": datatype,
        "Date": f"{day[:4]}-{day[4:6]}-{day[6:]}T00:00:00Z",
    }
