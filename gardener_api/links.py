"""Where a person reads on: addresses in Dagster's UI and in Google's console. Pure."""

import datetime as dt
from dataclasses import dataclass
from urllib.parse import quote, urlencode, urlsplit

_CONSOLE = "https://console.cloud.google.com"


@dataclass(frozen=True, kw_only=True)
class Links:
    """Makes links; a method returns ``None`` where nobody said where that is.

    Attributes:
        dagster_url: Of Dagster's UI, as browsers reach it.
        project: The Google Cloud project of the tables.

    Raises:
        ValueError: ``dagster_url`` is no URL of a web page.
    """

    dagster_url: str | None = None
    project: str | None = None

    def __post_init__(self) -> None:
        if self.dagster_url is None:
            return
        parts = urlsplit(self.dagster_url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(
                f"Dagster's URL {self.dagster_url!r}: expected one like http://dagster:3000"
            )

    def run(self, run_id: str) -> str | None:
        """A run in Dagster."""
        return self._dagster(f"runs/{quote(run_id, safe='')}") if run_id else None

    def backfill(self, backfill_id: str) -> str | None:
        """A backfill in Dagster."""
        return self._dagster(f"runs/b/{quote(backfill_id, safe='')}")

    def partition(self, asset: str, date: dt.date) -> str | None:
        """A date of an asset in Dagster; the asset like ``raw_ndt/ndt7``."""
        query = urlencode({"view": "partitions", "partition": date.isoformat()})
        return self._dagster(f"assets/{quote(asset)}?{query}")

    def table(self, table: str) -> str | None:
        """A table in BigQuery's console; the table like ``raw_ndt.ndt7``."""
        if not self.project:
            return None
        dataset, _, name = table.partition(".")
        query = {"project": self.project, "p": self.project, "d": dataset, "t": name}
        return f"{_CONSOLE}/bigquery?{urlencode(query | {'page': 'table'})}"

    def archives(self, bucket: str, prefix: str) -> str:
        """A folder in Cloud Storage's console."""
        return f"{_CONSOLE}/storage/browser/{quote(bucket)}/{quote(prefix)}"

    def _dagster(self, path: str) -> str | None:
        return f"{self.dagster_url.rstrip('/')}/{path}" if self.dagster_url else None
