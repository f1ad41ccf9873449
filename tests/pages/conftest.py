"""A real browser, in front of a status page over 200,000 jobs.

All of it ends with its module: while Playwright runs, its event loop is the main thread's, and no
other test could run one.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator

import pytest
from filled import FILLED_NOW, fill, filled_config
from playwright.sync_api import Browser, Page, sync_playwright
from served import Site, served

from gardener_api.store.store import JobStore

JOBS = 200_000
SECONDS = 30.0
NewPage = Callable[..., Page]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, chromium: str) -> Iterator[Site]:
    """The status page over the filled store."""
    del chromium  # where there is no browser, nothing is filled
    url = f"sqlite:///{tmp_path_factory.mktemp('filled') / 'gardener.db'}"
    config = filled_config()
    store = JobStore.open(url, lease=config.tracker.timeout, max_attempts=3)
    with contextlib.closing(store):
        fill(url, config, jobs=JOBS)
        with served(config, store, FILLED_NOW) as site:
            yield site


@pytest.fixture(scope="module")
def chromium() -> str:
    """The machine's Chromium: Playwright is to download none."""
    found = shutil.which("chromium")
    if found:
        return found
    reason = "Chromium is not installed: there is no chromium on the PATH"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """The browser."""
    with sync_playwright() as playwright:
        # Its sandbox needs more than a container gives; it opens nothing but our own pages.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def new_page(browser: Browser, site: Site) -> Iterator[NewPage]:
    """Opens a path in a window of its own. At the end no console may have anything in it."""
    contexts, faults = [], []

    def open_(
        path: str = "/", *, width: int = 1400, scheme: str = "light", scripts: bool = True
    ) -> Page:
        context = browser.new_context(
            base_url=site.url,
            viewport={"width": width, "height": 900},
            color_scheme="dark" if scheme == "dark" else "light",
            java_script_enabled=scripts,
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(SECONDS * 1000)
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("requestfailed", lambda request: faults.append(request.url))
        page.goto(path)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert faults == []
