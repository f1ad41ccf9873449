"""What a person clicks in Dagster's UI, over the same GraphQL."""

import time
from dataclasses import dataclass
from typing import Any

import requests

_REEXECUTE = """
mutation Reexecute($params: ReexecutionParams!) {
  launchRunReexecution(reexecutionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
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


@dataclass(frozen=True)
class DagsterUI:
    """The webserver's buttons."""

    url: str

    def re_execute_from_failure(self, run_id: str) -> str:
        """Returns the new run's id."""
        params = {"parentRunId": run_id, "strategy": "FROM_FAILURE"}
        answer = self._ask(_REEXECUTE, {"params": params})["launchRunReexecution"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return str(answer["run"]["runId"])

    def cancel_backfill(self, backfill_id: str) -> None:
        answer = self._ask(_CANCEL, {"id": backfill_id})["cancelPartitionBackfill"]
        assert answer["__typename"] == "CancelBackfillSuccess", answer

    def turn(self, sensor: str, *, on: bool) -> None:
        """Turns a sensor on or off; off means that it starts nothing more.

        A tick that ends at the same moment writes the state back as it read it, running: Dagster
        reads and writes in two steps. So it is looked at again once no tick goes on.
        """
        selector = {
            "repositoryName": "__repository__",
            "repositoryLocationName": "gardener",
            "sensorName": sensor,
        }
        if on:
            answer = self._ask(_START, {"sensor": selector})["startSensor"]
            assert answer["__typename"] == "Sensor", answer
            return
        deadline = time.monotonic() + 60
        while (state := self._state(selector))["status"] == "RUNNING" or _ticks(state):
            assert time.monotonic() < deadline, state
            if state["status"] == "RUNNING":
                answer = self._ask(_STOP, {"id": state["id"]})["stopSensor"]
                assert answer["__typename"] == "StopSensorMutationResult", answer
            time.sleep(0.2)

    def _state(self, selector: dict[str, str]) -> dict[str, Any]:
        found = self._ask(_SENSOR, {"sensor": selector})["sensorOrError"]
        state: dict[str, Any] = found["sensorState"]
        return state

    def _ask(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        body = requests.post(
            f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=60
        ).json()
        assert "errors" not in body, body
        data: dict[str, Any] = body["data"]
        return data


def _ticks(state: dict[str, Any]) -> bool:
    return any(tick["status"] == "STARTED" for tick in state["ticks"])
