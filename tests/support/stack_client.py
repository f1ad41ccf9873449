"""A running stack, as tests see it."""

import datetime as dt
import time
from dataclasses import dataclass

import requests
from google.cloud import bigquery

from gardener_api.config import GardenerConfig
from gardener_api.store import JobStore
from gardener_dagster.local.dagster_client import DagsterClient
from gardener_dagster.local.processes import Processes
from gardener_dagster.local.samples import Expected
from gardener_dagster.local.stack import StackSettings

BACKFILL_SECONDS = 230

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
        deadline = time.monotonic() + BACKFILL_SECONDS
        while time.monotonic() < deadline:
            self.processes.check()
            status = self.dagster.backfill_status(backfill_id)
            if status not in ("REQUESTED", "CANCELING", "FAILING"):
                return status
            time.sleep(0.5)
        raise TimeoutError(f"backfill {backfill_id} is still {status}")

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
