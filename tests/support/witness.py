"""What an engineer sees of a running stack: status page, Dagster, alerts, Prometheus. Literally."""

import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import requests
import yaml
from dagster import DagsterEventType, RunsFilter
from dagster._core.execution.plan.objects import StepFailureData
from dagster._core.scheduler.instigation import TickStatus
from playwright.sync_api import Browser, Error
from prometheus import program
from waiting import until

from gardener_dagster.local.stack.parts import StackSettings

WIDTH = 1400


@dataclass
class Hook:
    """A web hook, and what it was told."""

    url: str
    told: list[dict[str, str]]

    def of(self, date: str) -> list[dict[str, str]]:
        """What it was told of a date."""
        return [alert for alert in self.told if alert["date"] == date]


@contextlib.contextmanager
def web_hook() -> Iterator[Hook]:
    """One that takes everything."""
    told: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing is logged."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield Hook(f"http://127.0.0.1:{server.server_address[1]}/hook", told)
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def scraping(settings: StackSettings, rules: Path, port: int) -> Iterator[str]:
    """A Prometheus that scrapes the stack's sidecar each second; its URL."""
    folder = settings.home / "prometheus"
    folder.mkdir(parents=True)
    target = {"targets": [f"127.0.0.1:{settings.ports['metrics']}"]}
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [{"job_name": "gardener", "static_configs": [target]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [
        program("prometheus"), f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


@dataclass(frozen=True, kw_only=True)
class Witness:
    """Looks at a stack.

    Attributes:
        settings: Of the stack.
        instance: Its Dagster.
        hook: That is told.
        browser: To look with.
        prometheus: Its URL.
        pictures: Folder of what was looked at.
    """

    settings: StackSettings
    instance: dg.DagsterInstance
    hook: Hook
    browser: Browser
    prometheus: str
    pictures: Path

    # -- the status page

    def overview(self, name: str, *, about: str = "") -> list[str]:
        """The problems that the status page begins with.

        Args:
            name: Of the picture.
            about: Only the problems that name it.
        """
        return self._read("/", f"{name}-status", ".problem, .empty", about)

    def job(self, number: int, name: str) -> list[str]:
        """What a job's page says first."""
        return self._read(f"/job/{number}", f"{name}-job", "dd.bad, dt:text-is('What to do') + dd")

    def _read(self, path: str, picture: str, selector: str, about: str = "") -> list[str]:
        page = self.browser.new_page(viewport={"width": WIDTH, "height": 900})
        try:
            page.goto(self.settings.status_url + path)
        except Error as error:
            return [str(error).splitlines()[0]]
        else:
            page.screenshot(path=self.pictures / f"{picture}.png", full_page=True)
            found = page.locator(selector, has_text=about).all_inner_texts()
            return [" / ".join(text.split("\n\n")) for text in found]
        finally:
            page.close()

    # -- Dagster

    def runs(self, **tags: str) -> list[dg.DagsterRun]:
        """Its runs with these tags, the oldest first."""
        return list(reversed(self.instance.get_runs(RunsFilter(tags=tags))))

    def failures(self, run_id: str) -> list[str]:
        """The first line of what each failed step of a run says."""
        connection = self.instance.get_records_for_run(
            run_id, of_type=DagsterEventType.STEP_FAILURE
        )
        events = [record.event_log_entry.dagster_event for record in connection.records]
        data = [event.event_specific_data for event in events if event]
        return [
            d.error.message.strip().splitlines()[0]
            for d in data
            if isinstance(d, StepFailureData) and d.error
        ]

    def log(self, run_id: str, level: int = 30) -> list[str]:
        """What the log of a run says, from warnings on."""
        entries = self.instance.all_logs(run_id)
        return [entry.user_message for entry in entries if int(entry.level) >= level]

    def checks(self, run_id: str) -> list[str]:
        """The checks that failed in a run."""
        connection = self.instance.get_records_for_run(
            run_id, of_type=DagsterEventType.ASSET_CHECK_EVALUATION
        )
        events = [record.event_log_entry.dagster_event for record in connection.records]
        found = [event.asset_check_evaluation_data for event in events if event]
        return [
            f"{e.asset_key.to_user_string()} {e.check_name}: {e.description}"
            for e in found
            if not e.passed
        ]

    def tick(self, sensor: str) -> str | None:
        """The first line of the last tick's error, if it failed."""
        [state] = [s for s in self.instance.all_instigator_state() if s.name == sensor]
        ticks = self.instance.get_ticks(
            state.instigator_origin_id, state.selector_id, limit=1, statuses=[TickStatus.FAILURE]
        )
        error = ticks[0].error if ticks else None
        return error.message.strip().splitlines()[0] if error else None

    def picture(self, path: str, name: str, *, seconds: float = 4.0, opened: str = "") -> None:
        """Takes one of a page of Dagster's, which loads by and by.

        Args:
            path: Of the page.
            name: Of the picture.
            seconds: For it to load.
            opened: The text of a link to click first.
        """
        page = self.browser.new_page(viewport={"width": WIDTH, "height": 900})
        with contextlib.closing(page):
            page.goto(self.settings.dagster_url + path)
            page.wait_for_timeout(seconds * 1000)
            if opened:
                page.get_by_text(opened, exact=True).first.click()
                page.wait_for_timeout(seconds * 1000)
            page.screenshot(path=self.pictures / f"{name}.png")

    # -- who is told

    def told(self, date: str, count: int = 1) -> list[str]:
        """What the hook is told of a date, once it was told so often."""
        until(lambda: len(self.hook.of(date)) >= count, f"no alert of {date}")
        return [f"[{a['level']}] {a['title']}: {a['reason']}" for a in self.hook.of(date)]

    def prometheus_alerts(self) -> dict[str, str]:
        """Prometheus' alerts whose condition holds, with their summaries."""
        url = f"{self.prometheus}/api/v1/alerts"
        alerts = requests.get(url, timeout=10).json()["data"]["alerts"]
        return {a["labels"]["alertname"]: a["annotations"]["summary"] for a in alerts}


def answer(url: str) -> str:
    """What a URL answers: its code and first line, or why not."""
    try:
        said = requests.get(url, timeout=10)
    except requests.RequestException as error:
        return str(error)
    return f"{said.status_code} {said.text.strip().splitlines()[0]}"
