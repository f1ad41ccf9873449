"""A running stack, as tests see it."""

import datetime as dt
from dataclasses import dataclass

import requests
from google.cloud import bigquery
from waiting import until

from gardener_api.config import GardenerConfig
from gardener_api.store.store import JobStore
from gardener_dagster.dagster_client import UNFINISHED, DagsterClient
from gardener_dagster.local.samples.archives import Expected
from gardener_dagster.local.stack.parts import StackSettings
from gardener_dagster.local.stack.processes import Processes

BACKFILL_SECONDS = 800

_PARTITIONS = """
query Partitions($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) {
    ... on AssetNode {
      assetPartitionStatuses {
        ... on TimePartitionStatuses { ranges { status startKey endKey } }
      }
    }
  }
}"""


def wait_for_backfill(
    dagster: DagsterClient, processes: Processes, backfill_id: str, seconds: float
) -> str:
    """Return the status of a backfill when it has ended."""

    def has_ended() -> bool:
        processes.check()
        return dagster.backfill_status(backfill_id) not in UNFINISHED

    until(has_ended, f"backfill {backfill_id} has not ended", seconds, pause=0.5)
    return dagster.backfill_status(backfill_id)


@dataclass(frozen=True, kw_only=True)
class StackClient:
    """Everything that a test asks of a stack."""

    settings: StackSettings
    config: GardenerConfig
    processes: Processes
    store: JobStore
    dagster: DagsterClient
    bigquery: bigquery.Client
    expected: dict[tuple[str, dt.date], Expected]

    def wait_for_backfill(self, backfill_id: str) -> str:
        """Its status when it has ended."""
        return wait_for_backfill(self.dagster, self.processes, backfill_id, BACKFILL_SECONDS)

    def materialized(self, *path: str) -> dict[str, str]:
        """Status of each partition that Dagster knows something of, by its key."""
        answer = requests.post(
            f"{self.settings.dagster_url}/graphql",
            json={"query": _PARTITIONS, "variables": {"key": {"path": list(path)}}},
            timeout=60,
        ).json()
        statuses: dict[str, str] = {}
        for part in answer["data"]["assetNodeOrError"]["assetPartitionStatuses"]["ranges"]:
            day, last = (dt.date.fromisoformat(part[end]) for end in ("startKey", "endKey"))
            while day <= last:
                statuses[day.isoformat()] = part["status"]
                day += dt.timedelta(days=1)
        return statuses

    def value(self, table: str, date: dt.date, expression: str = "COUNT(*)") -> int:
        """An aggregate over a partition."""
        dataset, name = table.split(".")
        project = self.bigquery.project
        sql = f"SELECT {expression} AS n FROM `{project}.{dataset}.{name}` WHERE date = @date"  # noqa: S608
        parameter = bigquery.ScalarQueryParameter("date", "DATE", date)
        config = bigquery.QueryJobConfig(query_parameters=[parameter])
        [row] = self.bigquery.query(sql, job_config=config).result()
        return int(row["n"])
