"""Links to pages of Dagster's UI and of Google's console. Pure."""

import datetime as dt
from dataclasses import dataclass
from urllib.parse import quote, urlencode, urlsplit

_CONSOLE = "https://console.cloud.google.com"

_AT_ONCE = {"live-data-batch-size": "100"}
"""Number of assets per status request of Dagster's UI; M-Lab's sources have 56.

The UI's default is ten, with a pause of a second between requests; it can miss a fast answer and
then shows *Loading...* for five more seconds. It reads this parameter when a window is opened and
applies it to all pages.
"""


@dataclass(frozen=True, kw_only=True)
class Links:
    """Makes links; a method returns ``None`` if the URL or project that it needs is not set.

    Attributes:
        dagster_url: The URL of Dagster's UI, as browsers reach it.
        project: The Google Cloud project of the tables.
        status_url: The URL of the status page, as browsers reach it.

    Raises:
        ValueError: ``dagster_url`` or ``status_url`` is not an HTTP URL.
    """

    dagster_url: str | None = None
    project: str | None = None
    status_url: str | None = None

    def __post_init__(self) -> None:
        _check("Dagster's URL", self.dagster_url, "http://dagster:3000")
        _check("the status page's URL", self.status_url, "http://sidecar:8081")

    def asset_graph(self) -> str | None:
        """Link to all assets in Dagster, with their statuses."""
        return self._dagster("asset-groups")

    def run(self, run_id: str) -> str | None:
        """Link to a run in Dagster."""
        return self._dagster(f"runs/{quote(run_id, safe='')}") if run_id else None

    def backfill(self, backfill_id: str) -> str | None:
        """Link to a backfill in Dagster."""
        return self._dagster(f"runs/b/{quote(backfill_id, safe='')}")

    def partition(self, asset: str, date: dt.date) -> str | None:
        """Link to a date of an asset, like ``raw_ndt/ndt7``, in Dagster."""
        return self._dagster(
            f"assets/{quote(asset)}", view="partitions", partition=date.isoformat()
        )

    def table(self, table: str) -> str | None:
        """Link to a table, like ``raw_ndt.ndt7``, in BigQuery's console."""
        if not self.project:
            return None
        dataset, _, name = table.partition(".")
        query = {"project": self.project, "p": self.project, "d": dataset, "t": name}
        return f"{_CONSOLE}/bigquery?{urlencode(query | {'page': 'table'})}"

    def archives(self, bucket: str, prefix: str) -> str:
        """Link to a folder in Cloud Storage's console."""
        return f"{_CONSOLE}/storage/browser/{quote(bucket)}/{quote(prefix)}"

    def jobs(self, experiment: str, datatype: str) -> str | None:
        """Link to a source's jobs on the status page, the newest date first."""
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
