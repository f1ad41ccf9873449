"""What a person does in Dagster's UI, over the same GraphQL."""

import datetime as dt
import os
import re
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import requests

_LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on Error { message }
  }
}"""
_RE_EXECUTE = """
mutation ReExecute($params: ReexecutionParams!) {
  launchRunReexecution(reexecutionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on Error { message }
  }
}"""
_TERMINATE = """
mutation Terminate($run: String!, $policy: TerminateRunPolicy!) {
  terminateRun(runId: $run, terminatePolicy: $policy) { __typename }
}"""
_RUN = """
query Run($run: ID!) { runOrError(runId: $run) { ... on Run { status } } }"""
_LOG = """
query Log($run: ID!) {
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
_CANCEL = """
mutation Cancel($id: String!) {
  cancelPartitionBackfill(backfillId: $id) { __typename ... on PythonError { message } }
}"""
_START = """
mutation Start($sensor: SensorSelector!) {
  startSensor(sensorSelector: $sensor) { __typename ... on PythonError { message } }
}"""
_STOP = """
mutation Stop($id: String!) {
  stopSensor(id: $id) { __typename ... on PythonError { message } }
}"""
_SENSOR = """
query Sensor($sensor: SensorSelector!) {
  sensorOrError(sensorSelector: $sensor) {
    ... on Sensor { sensorState { id status ticks(limit: 1) { status } } }
  }
}"""
_TICK = """
mutation Tick($schedule: ScheduleSelector!, $timestamp: Float!) {
  scheduleDryRun(selectorData: $schedule, timestamp: $timestamp) {
    __typename
    ... on DryRunInstigationTick {
      evaluationResult {
        error { message }
        runRequests { tags { key value } assetSelection { path } }
      }
    }
    ... on PythonError { message }
  }
}"""
_REPOSITORY = {"repositoryName": "__repository__", "repositoryLocationName": "gardener"}
_OFF_SECONDS = 60.0


class CodeServerUnreachable(Exception):
    """The webserver does not reach the code server, now."""


@dataclass(frozen=True, kw_only=True)
class DagsterUI:
    """The webserver's buttons and pages.

    Attributes:
        url: Of the webserver.
    """

    url: str

    # -- runs

    def launch(
        self,
        assets: Sequence[Sequence[str]],
        first: dt.date,
        last: dt.date,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Materialize the assets of these dates in one run; its ID."""
        ends = {"start": first.isoformat(), "end": last.isoformat()}
        dates = {f"dagster/asset_partition_range_{end}": day for end, day in ends.items()}
        return self._launch(assets, dates | dict(tags or {}))

    def re_execute(self, run_id: str) -> str:
        """*Re-execute from failure*; the ID of the new run."""
        return self._started(_RE_EXECUTE, {"parentRunId": run_id, "strategy": "FROM_FAILURE"})

    def terminate(self, run_id: str, *, force: bool = False) -> None:
        """*Terminate*; with *Force termination* it is over for Dagster, which tells no process."""
        answer = self.ask_to_terminate(run_id, force=force)
        assert answer == "TerminateRunSuccess", answer

    def ask_to_terminate(self, run_id: str, *, force: bool = False) -> str:
        """Return what Dagster answers to *Terminate*."""
        policy = "MARK_AS_CANCELED_IMMEDIATELY" if force else "SAFE_TERMINATE"
        answer = self._ask(_TERMINATE, {"run": run_id, "policy": policy})["terminateRun"]
        return str(answer["__typename"])

    def kill(self, run_id: str) -> None:
        """End its process as an out-of-memory kill would."""
        os.kill(self.process_of(run_id), signal.SIGKILL)

    def process_of(self, run_id: str) -> int:
        """The ID of the process that executes it."""
        [pid] = re.findall(r"Started process for run \(pid: (\d+)\)", "\n".join(self.log(run_id)))
        return int(pid)

    def status(self, run_id: str) -> str:
        """Dagster's word for it, like ``STARTED``."""
        return str(self._ask(_RUN, {"run": run_id})["runOrError"]["status"])

    def log(self, run_id: str) -> list[str]:
        """The messages of its events."""
        return [event.get("message", "") for event in self._events(run_id)]

    def failures(self, run_id: str) -> list[str]:
        """Why steps of it failed."""
        return [event["error"]["message"] for event in self._events(run_id) if "error" in event]

    # -- backfills, sensors, schedules

    def cancel_backfill(self, backfill_id: str) -> None:
        """*Cancel*."""
        answer = self._ask(_CANCEL, {"id": backfill_id})["cancelPartitionBackfill"]
        assert answer["__typename"] == "CancelBackfillSuccess", answer

    def turn(self, sensor: str, *, on: bool) -> None:
        """Turns a sensor on or off; off means that it starts nothing more.

        A tick that ends at the same moment writes the state back as it read it, running: Dagster
        reads and writes in two steps. So it is looked at again once no tick goes on.
        """
        selector = _REPOSITORY | {"sensorName": sensor}
        if on:
            answer = self._ask(_START, {"sensor": selector})["startSensor"]
            assert answer["__typename"] == "Sensor", answer
            return
        deadline = time.monotonic() + _OFF_SECONDS
        while (state := self._state(selector))["status"] == "RUNNING" or _ticks(state):
            assert time.monotonic() < deadline, state
            if state["status"] == "RUNNING":
                answer = self._ask(_STOP, {"id": state["id"]})["stopSensor"]
                assert answer["__typename"] == "StopSensorMutationResult", answer
            time.sleep(0.2)

    def test_tick(self, schedule: str, at: dt.datetime) -> list[str]:
        """Evaluates a schedule as if it were that time, and launches the runs it asks for.

        Returns:
            The runs' ids.
        """
        selector = _REPOSITORY | {"scheduleName": schedule}
        variables = {"schedule": selector, "timestamp": at.timestamp()}
        tick = self._ask(_TICK, variables)["scheduleDryRun"]["evaluationResult"]
        assert tick["error"] is None, tick
        return [
            self._launch(
                [asset["path"] for asset in request["assetSelection"]],
                {tag["key"]: tag["value"] for tag in request["tags"]},
            )
            for request in tick["runRequests"]
        ]

    # -- how

    def _launch(self, assets: Sequence[Sequence[str]], tags: Mapping[str, str]) -> str:
        chosen = {"jobName": "__ASSET_JOB", "assetSelection": [{"path": list(p)} for p in assets]}
        params = {
            "selector": _REPOSITORY | chosen | {"assetCheckSelection": []},
            "executionMetadata": {"tags": [{"key": k, "value": v} for k, v in tags.items()]},
        }
        return self._started(_LAUNCH, params)

    def _started(self, mutation: str, params: dict[str, Any]) -> str:
        [answer] = self._ask(mutation, {"params": params}).values()
        if "DagsterUserCodeUnreachableError" in answer.get("message", ""):
            raise CodeServerUnreachable
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return str(answer["run"]["runId"])

    def _events(self, run_id: str) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = self._ask(_LOG, {"run": run_id})["logsForRun"]["events"]
        return events

    def _state(self, selector: dict[str, str]) -> dict[str, Any]:
        state: dict[str, Any] = self._ask(_SENSOR, {"sensor": selector})["sensorOrError"][
            "sensorState"
        ]
        return state

    def _ask(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        body = requests.post(
            f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=60
        ).json()
        assert "errors" not in body, body["errors"]
        data: dict[str, Any] = body["data"]
        return data


def _ticks(state: dict[str, Any]) -> bool:
    return any(tick["status"] == "STARTED" for tick in state["ticks"])
