"""What a person does with runs in Dagster's UI, over the same GraphQL."""

import datetime as dt
import os
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import requests

_LAUNCH = """
mutation($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on Error { message }
  }
}"""
_RE_EXECUTE = """
mutation($params: ReexecutionParams!) {
  launchRunReexecution(reexecutionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on Error { message }
  }
}"""
_TERMINATE = """
mutation($run: String!) { terminateRun(runId: $run) { __typename } }"""
_RUN = """
query($run: ID!) { runOrError(runId: $run) { ... on Run { status } } }"""
_LOG = """
query($run: ID!) {
  logsForRun(runId: $run) {
    ... on EventConnection {
      events {
        __typename
        ... on MessageEvent { message }
        ... on ExecutionStepFailureEvent { error { message } }
      }
    }
  }
}"""


@dataclass(frozen=True, kw_only=True)
class Runs:
    """The runs of a Dagster.

    Attributes:
        url: Of its webserver.
    """

    url: str

    def launch(self, assets: Sequence[Sequence[str]], first: dt.date, last: dt.date) -> str:
        """Materialize the assets of these dates in one run; its ID."""
        selection = [{"path": list(path)} for path in assets]
        ends = {"start": first.isoformat(), "end": last.isoformat()}
        params = {
            "selector": {
                "repositoryName": "__repository__",
                "repositoryLocationName": "gardener",
                "pipelineName": "__ASSET_JOB",
                "assetSelection": selection,
            },
            "mode": "default",
            "executionMetadata": {
                "tags": [
                    {"key": f"dagster/asset_partition_range_{end}", "value": day}
                    for end, day in ends.items()
                ]
            },
        }
        return self._started(_LAUNCH, params)

    def re_execute(self, run_id: str) -> str:
        """*Re-execute from failure*; the ID of the new run."""
        return self._started(_RE_EXECUTE, {"parentRunId": run_id, "strategy": "FROM_FAILURE"})

    def terminate(self, run_id: str) -> None:
        """*Terminate*."""
        answer = self._ask(_TERMINATE, {"run": run_id})["terminateRun"]
        assert answer["__typename"] == "TerminateRunSuccess"

    def kill(self, run_id: str) -> None:
        """End its process as an out-of-memory kill would."""
        [pid] = re.findall(r"Started process for run \(pid: (\d+)\)", "\n".join(self.log(run_id)))
        os.kill(int(pid), signal.SIGKILL)

    def status(self, run_id: str) -> str:
        """Dagster's word for it, like ``STARTED``."""
        return str(self._ask(_RUN, {"run": run_id})["runOrError"]["status"])

    def log(self, run_id: str) -> list[str]:
        """The messages of its events."""
        return [event.get("message", "") for event in self._events(run_id)]

    def failures(self, run_id: str) -> list[str]:
        """Why steps of it failed."""
        return [event["error"]["message"] for event in self._events(run_id) if "error" in event]

    def _events(self, run_id: str) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = self._ask(_LOG, {"run": run_id})["logsForRun"]["events"]
        return events

    def _started(self, mutation: str, params: dict[str, Any]) -> str:
        [answer] = self._ask(mutation, {"params": params}).values()
        assert "run" in answer, answer
        return str(answer["run"]["runId"])

    def _ask(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        response = requests.post(
            f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=60
        )
        body = response.json()
        assert "errors" not in body, body["errors"]
        data: dict[str, Any] = body["data"]
        return data
