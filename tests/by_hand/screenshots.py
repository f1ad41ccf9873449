"""The pictures of the docs, of a running stack: run by hand, by ``make screenshots``.

    PYTHONPATH=tests/support .venv/bin/python tests/by_hand/screenshots.py [FOLDER]

Some dates are parsed, one fails, one is amid its parse; then each of the things that people do is
looked at in a browser. Look at the pictures before they are committed.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, ViewportSize
from stage import PARSED, ROOT, Stage, day, staged
from waiting import until

from gardener_api.jobs.job import JobState

CONFIG = """
start_date: 2024-01-01
tracker: {timeout: 10m}
monitor: {polling_interval: 2s}
late_archives: {days: 0}
history: {enabled: false}
sources:
- {bucket: archive-measurement-lab, experiment: ndt, datatype: annotation2}
- {bucket: archive-measurement-lab, experiment: ndt, datatype: ndt7, target_datasets: {join: ndt}}
- {bucket: archive-measurement-lab, experiment: ndt, datatype: hopannotation2}
"""
GOOD = tuple(day(ago) for ago in (9, 8, 7, 6, 5))
FAILED, PARSING = day(4), day(3)
WIDTHS = {"status": 1400, "dagster": 1100}
LOADING_MS = 6_000
"""For a page of Dagster's, which fills by and by."""


def cut_off(row: str) -> str:
    """No JSON any more."""
    return row[: len(row) // 2]


class Camera:
    """Takes the pictures."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self._stage, self._folder = stage, folder

    def status(self, path: str, name: str, height: int) -> None:
        """A page of the status page."""
        page = self._page("status", height)
        page.goto(self._stage.settings.status_url + path)
        self._take(page, name)

    def dagster(
        self, path: str, name: str, height: int, act: Callable[[Page], None] = lambda _: None
    ) -> None:
        """A page of Dagster's, after what ``act`` does on it."""
        page = self._page("dagster", height)
        page.goto(self._stage.settings.dagster_url + path)
        page.wait_for_timeout(LOADING_MS)
        act(page)
        page.wait_for_timeout(LOADING_MS)
        self._take(page, name)

    def _page(self, of: str, height: int) -> Page:
        size: ViewportSize = {"width": WIDTHS[of], "height": height}
        page = self._stage.witness.browser.new_page(viewport=size)
        page.set_default_timeout(30_000)
        return page

    def _take(self, page: Page, name: str) -> None:
        path = self._folder / f"{name}.png"
        page.screenshot(path=path)
        page.close()
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB", flush=True)


def open_the_error(page: Page) -> None:
    """Of the step that failed, in a run's log."""
    page.get_by_text("View full message").first.click()


def choose_dates(page: Page) -> None:
    """Of an asset's, up to the button that launches the backfill."""
    page.get_by_text("Materialize").first.click()
    page.wait_for_timeout(LOADING_MS)
    page.get_by_role("dialog").get_by_role("textbox").first.click()
    page.keyboard.press("Control+A")
    page.keyboard.type(f"[{GOOD[0]}...{GOOD[-1]}]")
    page.keyboard.press("Enter")


def take_pictures(stage: Stage, camera: Camera) -> None:
    """One after the other."""
    stage.samples(PARSING)
    stage.parse_spoiled(FAILED, cut_off)
    stage.ui.launch([("parsed", "ndt", "hopannotation2")], GOOD[0], GOOD[-1])
    until(lambda: all(stage.ended(date, "hopannotation2") for date in GOOD), "no end")
    stage.stop_worker()
    with stage.held_parser("/o/ndt%2Fndt7"):
        stage.ui.launch(PARSED, PARSING, PARSING)
        until(
            lambda: (job := stage.job(PARSING)) and job.state is JobState.PARSING,
            "no parser has the job",
        )
        camera.status("/", "watch-a-day", 700)
        camera.status(f"/job/{stage.newest(PARSING).number}", "run-a-parser", 560)
    failed = stage.newest(FAILED)
    camera.status(f"/job/{failed.number}", "why-a-date-failed", 620)
    run = stage.tables_run(failed)
    camera.dagster(f"/runs/{run.run_id}", "why-a-run-failed", 580, open_the_error)
    camera.dagster(
        f"/assets/raw_ndt/ndt7?view=partitions&partition={GOOD[2]}", "a-date-in-dagster", 760
    )
    camera.dagster("/assets/parsed/ndt/ndt7", "re-process-a-range", 720, choose_dates)
    camera.dagster("/assets/raw_ndt/hopannotation2", "add-a-datatype", 700)


def main() -> None:
    """Takes all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "docs")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gardener-screenshots-") as name:
        home = Path(name)
        with staged(home, home, config_text=CONFIG, dates=GOOD) as stage:
            take_pictures(stage, Camera(stage, folder))


if __name__ == "__main__":
    main()
