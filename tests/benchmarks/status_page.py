"""How long the server takes for each page of the status page: run by hand, asserts nothing.

    PYTHONPATH=tests/support .venv/bin/python tests/benchmarks/status_page.py \
        [--postgresql] [--jobs 200000] [--times 30]

The store is the one of the browser tests: jobs in all states, a month of them recent. Each page is
asked for over HTTP, one at a time, from the same process; the time is until its last byte. CPU is
what the process took, without a PostgreSQL server's: on a busy machine it tells more.
"""

import argparse
import contextlib
import http.client
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from filled import FILLED_NOW, fill, filled_config
from postgres import postgresql
from served import Site, served

from gardener_api.jobs.job import JobState
from gardener_api.store.store import JobStore

PAGES = (
    "/",
    "/jobs",
    "/jobs?page=1500",
    "/jobs?sort=-recent&page=1500",
    "/jobs?sort=date&page=1500",
    "/jobs?sort=source&page=1500",
    "/jobs?sort=state&page=1500",
    "/jobs?state=failed",
    "/jobs?state=failed&sort=source",
    "/jobs?state=complete&sort=source&page=100",
    "/jobs?experiment=ndt&datatype=ndt7&page=100",
    "/jobs?experiment=ndt&datatype=ndt7&state=failed&sort=state",
    "/jobs?experiment=nowhere",
    "/jobs?from=2022-01-01&to=2022-06-30&sort=source",
    "/jobs?text=nowhere",
    "/jobs?text=nowhere&sort=source",
    "/jobs?text=ndt7&sort=state&page=90",
    "/jobs?text=2022&experiment=ndt&state=complete&sort=date",
    "/sources",
    "/api/jobs",
)


def main() -> None:
    """Print a table: a page, its size, and its times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--postgresql", action="store_true", help="a server of its own")
    parser.add_argument("--jobs", type=int, default=200_000)
    parser.add_argument("--times", type=int, default=30, help="that each page is asked for")
    options = parser.parse_args()
    with database(postgres=options.postgresql) as url:
        config = filled_config()
        store = JobStore.open(url, lease=config.tracker.timeout, max_attempts=3)
        with contextlib.closing(store):
            fill(url, config, jobs=options.jobs)
            print(f"{sum(store.counts().values()):,} jobs, {urlsplit(url).scheme}")
            with served(config, store, FILLED_NOW) as site:
                [job] = store.jobs(states={JobState.JOINING}, limit=1)
                print(f"{'ms: p50':>9}{'p99':>9}{'CPU':>9}{'kB':>9}  page")
                for page in (*PAGES, f"/job/{job.number}", f"/api/jobs/{job.number}"):
                    measure(site, page, options.times)


@contextlib.contextmanager
def database(*, postgres: bool) -> Iterator[str]:
    """The URL of an empty database."""
    if postgres:
        with postgresql() as url:
            yield url
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{Path(folder) / 'gardener.db'}"


def measure(site: Site, page: str, times: int) -> None:
    """Print a line of the table."""
    connection = http.client.HTTPConnection(urlsplit(site.url).netloc, timeout=60)
    with contextlib.closing(connection):
        size = ask(connection, page)
        seconds = []
        cpu = time.process_time()
        for _ in range(times):
            start = time.perf_counter()
            ask(connection, page)
            seconds.append(time.perf_counter() - start)
    cpu = (time.process_time() - cpu) / times * 1000
    p50 = statistics.median(seconds) * 1000
    p99 = statistics.quantiles(seconds, n=100, method="inclusive")[98] * 1000
    print(f"{p50:9.1f}{p99:9.1f}{cpu:9.1f}{size / 1000:9.1f}  {page}")


def ask(connection: http.client.HTTPConnection, page: str) -> int:
    """The size of a page in bytes."""
    connection.request("GET", page)
    response = connection.getresponse()
    if response.status != 200:
        raise SystemExit(f"{page}: {response.status}")
    return len(response.read())


if __name__ == "__main__":
    main()
