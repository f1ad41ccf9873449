"""A client of Dagster's GraphQL API: launch a backfill, read the status of backfills and runs."""

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import requests

TIMEOUT_SECONDS = 60

_LAUNCH = """
mutation Launch($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
    ... on UnauthorizedError { message }
    ... on PartitionKeysNotFoundError { message }
    ... on PartitionSetNotFoundError { message }
    ... on InvalidSubsetError { message }
  }
}"""
_BACKFILL = """
query Backfill($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    __typename
    ... on PartitionBackfill { status }
    ... on BackfillNotFoundError { message }
    ... on PythonError { message }
  }
}"""
UNFINISHED = ("REQUESTED", "CANCELING", "FAILING")
"""Statuses of an unfinished backfill."""
_REQUESTED = """
query Requested {
  partitionBackfillsOrError(status: REQUESTED) {
    __typename
    ... on PartitionBackfills {
      results { id timestamp partitionNames assetSelection { path } }
    }
    ... on PythonError { message }
  }
}"""
_RUNS = """
query Runs($filter: RunsFilter!) {
  runsOrError(filter: $filter) {
    __typename
    ... on Runs { results { runId status } }
    ... on PythonError { message }
  }
}"""
_IN_PROGRESS = ["QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING"]


class DagsterError(RuntimeError):
    """Dagster rejected a request; the message is Dagster's."""


@dataclass(frozen=True, kw_only=True)
class RunningBackfill:
    """A backfill with the status ``REQUESTED``: it is not ended, failing or being cancelled.

    Attributes:
        id: Its ID.
        started: When it was requested.
        assets: Keys of its assets; a key is the tuple of its parts.
        dates: Its partitions.
    """

    id: str
    started: dt.datetime
    assets: frozenset[tuple[str, ...]]
    dates: tuple[dt.date, ...]


@dataclass(frozen=True, kw_only=True)
class DagsterClient:
    """Client of one Dagster webserver.

    Attributes:
        url: Base URL, for example ``http://127.0.0.1:3000``.
    """

    url: str

    def backfill(self, assets: Iterable[Sequence[str]], dates: Iterable[dt.date]) -> str:
        """Launch a backfill of some assets over some dates.

        Args:
            assets: Asset keys; a key is the sequence of its parts.
            dates: The partitions.

        Returns:
            The backfill's ID.

        Raises:
            DagsterError: Dagster rejected the backfill.
        """
        params = {
            "assetSelection": [{"path": list(path)} for path in assets],
            "partitionNames": [date.isoformat() for date in dates],
        }
        answer = self._ask(_LAUNCH, {"params": params}, "launchPartitionBackfill")
        return str(answer["backfillId"])

    def backfill_status(self, backfill_id: str) -> str:
        """Return a backfill's status, for example ``REQUESTED`` or ``COMPLETED_SUCCESS``."""
        answer = self._ask(_BACKFILL, {"id": backfill_id}, "partitionBackfillOrError")
        return str(answer["status"])

    def backfill_url(self, backfill_id: str) -> str:
        """Return the URL of a backfill's page."""
        return f"{self.url}/runs/b/{backfill_id}"

    def running_backfills(self) -> list[RunningBackfill]:
        """Return the backfills with the status ``REQUESTED``."""
        answer = self._ask(_REQUESTED, {}, "partitionBackfillsOrError")
        return [
            RunningBackfill(
                id=str(found["id"]),
                started=dt.datetime.fromtimestamp(found["timestamp"], dt.UTC),
                assets=frozenset(tuple(key["path"]) for key in found["assetSelection"] or ()),
                dates=tuple(map(dt.date.fromisoformat, found["partitionNames"] or ())),
            )
            for found in answer["results"]
        ]

    def runs_in_progress(self) -> list[str]:
        """Return the IDs of the unfinished runs."""
        answer = self._ask(_RUNS, {"filter": {"statuses": _IN_PROGRESS}}, "runsOrError")
        return [str(run["runId"]) for run in answer["results"]]

    def _ask(self, query: str, variables: dict[str, Any], field: str) -> dict[str, Any]:
        response = requests.post(
            f"{self.url}/graphql",
            json={"query": query, "variables": variables},
            timeout=TIMEOUT_SECONDS,
        )
        try:
            body = response.json()
        except requests.JSONDecodeError:
            body = None
        if not isinstance(body, dict) or not (body.get("errors") or body.get("data")):
            response.raise_for_status()
            raise requests.RequestException(
                f"{self.url} answered no GraphQL: {response.text[:200]}"
            )
        if body.get("errors"):  # the HTTP status is 400 or 500
            raise DagsterError(str(body["errors"][0]["message"]))
        answer: dict[str, Any] = body["data"][field]
        if "message" in answer:
            raise DagsterError(str(answer["message"]))
        return answer
