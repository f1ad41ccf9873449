"""How long Dagster's pages take to show what they are opened for, in the machine's Chromium."""

import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import BrowserContext, Page, Request, ViewportSize, sync_playwright

from gardener_api.links import Links

TIMES = 5
SECONDS = 60.0
VIEWPORT = ViewportSize(width=1600, height=1000)
BUSY = "[class*=Spinner_spinner], [class*=shimmer]"
"""What Dagster's pages show where something is still to come."""

_IS_DRAWN = """([place, text]) => {
  const seen = (selector) =>
    [...document.querySelectorAll(selector)].filter((element) => element.checkVisibility());
  return seen(place).some((element) => new RegExp(text).test(element.textContent));
}"""
_IS_WHOLE = """([busy]) =>
  ![...document.querySelectorAll(busy)].some((element) => element.checkVisibility())
    && !document.body.textContent.includes("fetching statuses")"""


class Load(NamedTuple):
    """Seconds until what a page is opened for is there, and until all of it is.

    Attributes:
        drawn: What it is opened for is shown.
        answered: The last answer of the webserver came, of those that are shown then.
        whole: Nothing is shown as still to come; Dagster's UI may wait a second before it shows
            what has come.
    """

    drawn: float
    answered: float
    whole: float


class Loads(NamedTuple):
    """Of one page: each time in a browser that knows nothing yet, and in one that had it open."""

    new: list[Load]
    again: list[Load]


def load_times(
    url: str, *, raw: str, group: str, date: str, backfill: str, folder: Path
) -> Iterator[tuple[str, Loads]]:
    """Open each page a few times without anything in the browser's cache, then a few times more.

    Args:
        url: Of the webserver.
        raw: A raw asset, ``<dataset>/<datatype>``.
        group: Its group.
        date: One of its partitions.
        backfill: A backfill that made it; without one, the pages that need no history.
        folder: For a picture of each page.

    Yields:
        What the page is called, and how long each load took.
    """
    asset = f"/assets/{raw}?view=partitions"
    node = "foreignObject"  # of a graph
    graph = str(Links(dagster_url=url).asset_graph()).removeprefix(url)  # as it is opened
    pages = {
        "asset graph": (graph, node, group),
        "asset graph, by tens": ("/asset-groups", node, group),
        "graph of a group": (f"/locations/gardener/asset-groups/{group}", node, "annotation2"),
        "catalog": ("/assets", "body", r"[\d,]+ partitions"),
    }
    if backfill:
        pages |= {
            "asset, partitions": (asset, "body", r"Materialized \([1-9]"),
            "asset, one partition": (f"{asset}&partition={date}", "body", "rows loaded"),
            "backfill": (f"/runs/b/{backfill}", "body", r"\d+% completed"),
            "runs": ("/runs", "body", "Success"),
        }
    folder.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for name, (path, place, text) in pages.items():
            picture = folder / f"{name.replace(', ', '-').replace(' ', '-')}.png"
            open_it = partial(_load, f"{url}{path}", place, text, picture)
            new = []
            for _ in range(TIMES):
                with browser.new_context(viewport=VIEWPORT) as context:
                    new.append(open_it(context))
            with browser.new_context(viewport=VIEWPORT) as context:
                # Chromium keeps a script compiled once it has met it twice.
                again = [open_it(context) for _ in range(2 + TIMES)][2:]
            yield name, Loads(new, again)
        browser.close()


def _load(url: str, place: str, text: str, picture: Path, context: BrowserContext) -> Load:
    page = context.new_page()
    answers: list[float] = []

    def note(request: Request) -> None:
        if "/graphql" in request.url:
            answers.append(time.perf_counter())

    page.on("requestfinished", note)
    begun = time.perf_counter()
    page.goto(url, wait_until="commit")
    _until(page, _IS_DRAWN, [place, text])
    drawn = time.perf_counter()
    _until(page, _IS_WHOLE, [BUSY])
    answered, whole = max(answers), time.perf_counter()
    page.screenshot(path=picture)
    page.close()
    return Load(drawn - begun, answered - begun, whole - begun)


def _until(page: Page, condition: str, argument: list[str]) -> None:
    """Looks at each frame: Playwright's own waiting soon looks but once a second."""
    page.wait_for_function(condition, arg=argument, timeout=SECONDS * 1000)
