"""Requests for jobs, as tests make them: of ndt7, by one run."""

import datetime as dt
from typing import Any

from gardener_api.jobs.job import JobKey, JobRequest, Priority


def make_key(date: dt.date, datatype: str = "ndt7") -> JobKey:
    """The key of a datatype of M-Lab's archive on a date."""
    return JobKey(bucket="archive-mlab-oti", experiment="ndt", datatype=datatype, date=date)


def wanted(date: dt.date, **changed: Any) -> JobRequest:
    """A request for ndt7 on a date; ``changed`` as in ``request_for``."""
    return request_for(**{"key": make_key(date)} | changed)


def request_for(key: JobKey, **changed: Any) -> JobRequest:
    """A request for a key.

    Args:
        key: What is asked for.
        **changed: Fields of ``JobRequest`` that are to be different.
    """
    requester = str(changed.get("requester", "run:a"))
    values: dict[str, Any] = {
        "key": key,
        "requester": requester,
        "run_id": requester.removeprefix("run:"),
        "backfill_id": None,
        "covers_tables": False,
        "priority": Priority.BACKFILL,
        "daily": False,
        "filter": "",
        "tmp": "tmp_ndt",
        "raw": "raw_ndt",
        "join": "ndt",
        "rank": 0,
        "archives": 3,
    }
    return JobRequest(**values | changed)
