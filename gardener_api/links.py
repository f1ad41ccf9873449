"""Links to pages of Dagster's UI and of Google's console. Pure."""

import datetime as dt
from dataclasses import dataclass
from urllib.parse import quote, urlencode, urlsplit

_CONSOLE = "https://console.cloud.google.com"

_AT_ONCE = {"live-data-batch-size": "100"}
"""Assets whose statuses Dagster's UI asks for at a time; M-Lab's sources have 56.

By itself it asks for ten, and waits a second before it shows more of them; a quick answer it can
lose, and then shows *Loading...* for five seconds more. It reads this when a window is opened, and
keeps to it on all pages.
"""


@dataclass(frozen=True, kw_only=True)
class Links:
    """Makes links; a method returns ``None`` where nobody said where that is.

    Attributes:
        dagster_url: Of Dagster's UI, as browsers reach it.
        project: The Google Cloud project of the tables.
        status_url: Of the status page, as browsers reach it.

    Raises:
        ValueError: ``dagster_url`` or ``status_url`` is no URL of a web page.
    """

    dagster_url: str | None = None
    project: str | None = None
    status_url: str | None = None

    def __post_init__(self) -> None:
        _check("Dagster's URL", self.dagster_url, "http://dagster:3000")
        _check("the status page's URL", self.status_url, "http://sidecar:8081")

    def asset_graph(self) -> str | None:
        """All assets in Dagster, with their statuses."""
        return self._dagster("asset-groups")

    def run(self, run_id: str) -> str | None:
        """A run in Dagster."""
        return self._dagster(f"runs/{quote(run_id, safe='')}") if run_id else None

    def backfill(self, backfill_id: str) -> str | None:
        """A backfill in Dagster."""
        return self._dagster(f"runs/b/{quote(backfill_id, safe='')}")

    def partition(self, asset: str, date: dt.date) -> str | None:
        """A date of an asset in Dagster; the asset like ``raw_ndt/ndt7``."""
        return self._dagster(
            f"assets/{quote(asset)}", view="partitions", partition=date.isoformat()
        )

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

    def jobs(self, experiment: str, datatype: str) -> str | None:
        """A source's jobs on the status page, the newest date first."""
        if self.status_url is None:
            return None
        query = {"experiment": experiment, "datatype": datatype, "sort": "date"}
        return f"{self.status_url.rstrip('/')}/jobs?{urlencode(query)}"

    def _dagster(self, path: str, **query: str) -> str | None:
        if not self.dagster_url:
            return None
        return f"{self.dagster_url.rstrip('/')}/{path}?{urlencode(query | _AT_ONCE)}"


def _check(what: str, url: str | None, example: str) -> None:
    if url is None:
        return
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"{what} {url!r}: expected one like {example}")
