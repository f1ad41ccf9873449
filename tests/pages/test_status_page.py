"""The status page in a real browser, over 200,000 jobs in all states."""

import datetime as dt
import json
import re
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import pytest
from filled import FILLED_NOW
from playwright.sync_api import Page, Route, expect
from served import Site

from gardener_api.jobs.job import JobState
from gardener_api.links import Links
from gardener_api.store.store import JobStore

NewPage = Callable[..., Page]
YESTERDAY = FILLED_NOW.date() - dt.timedelta(days=1)
PAGES = ("/", "/jobs", "/jobs?state=failed", "/sources", "/sources/ndt/ndt7", "/jobs?text=nowhere")
OVERFLOWING = """() => {
  const inside = (e) => { for (let p = e.parentElement; p; p = p.parentElement)
    if (getComputedStyle(p).overflowX !== 'visible') return true; return false; };
  const root = document.documentElement;
  const wide = [...document.querySelectorAll('body *')].filter(e => !inside(e)
    && (e.getBoundingClientRect().right > root.clientWidth + 0.5
        || e.getBoundingClientRect().left < 0) && e.getBoundingClientRect().width > 0);
  const cut = [...document.querySelectorAll('.states a, .problem h3, nav a, button')].filter(
    e => e.scrollWidth > e.clientWidth && e.clientWidth > 0);
  if (root.scrollWidth > root.clientWidth) wide.push(root);
  return [...wide, ...cut].map(e => e.outerHTML.slice(0, 120));
}"""
# Of each text the contrast with what is behind it, by WCAG 2.
CONTRASTS = """() => {
  const rgba = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (c) => { const [r, g, b] = c.map(v => { v /= 255;
    return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (e) => { for (; e; e = e.parentElement) {
    const c = rgba(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c.slice(0, 3); } return [255, 255, 255]; };
  const found = [];
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    if (e.tagName === 'OPTION' || !e.getClientRects().length) continue;
    const [a, b] = [light(rgba(getComputedStyle(e).color)), light(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push([e.className, e.textContent.trim().slice(0, 40), ratio]);
  }
  return found;
}"""


@pytest.fixture
def store(site: Site) -> JobStore:
    """The store behind the page."""
    return site.store


def column(page: Page, number: int) -> list[str]:
    """The texts of a column of the list."""
    return page.locator(f"tbody td:nth-child({number})").all_inner_texts()


def test_the_store_has_everything(store: JobStore) -> None:
    counts = store.counts()
    assert sum(counts.values()) > 199_000
    assert set(counts) == set(JobState)


def test_what_is_wrong_leads_to_its_jobs(new_page: NewPage) -> None:
    page = new_page()
    titles = page.locator(".problem h3").all_inner_texts()
    for expected in (
        r"\d+ jobs parsed, but nobody began the tables for",
        r"\d+ jobs in a stage of the tables for more than 1 h: .*joining",
        r"\d+ jobs failed in loading",
        r"\d+ jobs failed in copying",
        r"\d+ jobs? in (init|parsing) without a word from the parser for up to 2 h",
        r"\d+ days are missing",
        r"\d+ attempts? lost since 2024-03-30 14:00 UTC",
    ):
        assert any(re.match(expected, title) for title in titles), expected
    assert page.title().startswith(f"{len(titles)} wrong")
    for problem in page.locator(".problem").all():
        assert problem.locator(".todo").inner_text()

    lost = page.locator(".problem", has_text="failed in loading").first
    about = lost.locator(".about").inner_text()
    lost.get_by_role("link", name=re.compile("2024-03")).first.click()
    expect(page.locator("h1")).to_contain_text("failed")
    expect(page.locator("dd.bad")).to_contain_text(about.split(":")[0].split(".")[0])
    page.go_back()

    tables = page.locator(".problem", has_text="in a stage of the tables")
    count = int(tables.locator("h3").inner_text().split()[0])
    tables.get_by_role("link", name=re.compile("^all")).click()
    assert set(column(page, 3)) == {"loading", "deduplicating", "copying", "deleting", "joining"}
    assert len(column(page, 3)) >= count


def test_a_cell_of_the_grid_leads_to_its_job(new_page: NewPage) -> None:
    page = new_page()
    rows = page.locator(".grid tbody tr")
    expect(rows).to_have_count(16)
    expect(rows.first.locator("td")).to_have_count(30)
    signs = set(page.locator(".grid .sign").all_inner_texts())
    assert signs == {"q", "i", "p", "w", "t", "✓", "✗", "–", "?"}
    cell = page.locator(".grid a.failed").first
    title = cell.get_attribute("title") or ""
    cell.click()
    source, date = title.partition(":")[0].split()
    expect(page.locator("h1")).to_have_text(f"{source} {date} failed")


def test_the_form_filters(new_page: NewPage) -> None:
    page = new_page("/jobs")
    page.get_by_label("Experiment").select_option("ndt")
    page.get_by_label("Datatype").select_option("ndt7")
    page.get_by_label("State").select_option("complete")
    page.get_by_label("From").fill("2023-02-01")
    page.get_by_label("To").fill("2023-02-03")
    page.get_by_role("button", name="Show").click()
    dates = column(page, 1)
    assert set(dates) == {"2023-02-01", "2023-02-02", "2023-02-03"}
    assert set(column(page, 2)) == {"ndt/ndt7"}
    assert set(column(page, 3)) == {"complete"}
    assert page.get_by_label("From").input_value() == "2023-02-01"

    page.get_by_label("To").fill("")
    page.get_by_label("State").select_option("")
    page.get_by_label("Text").fill("NDT7/202403")
    page.get_by_role("button", name="Show").click()
    assert all(date.startswith("2024-03") for date in column(page, 1))
    page.get_by_role("link", name="all jobs").click()
    expect(page.locator("tbody tr")).to_have_count(100)


def test_sorting_and_paging_are_in_the_url(new_page: NewPage) -> None:
    page = new_page("/jobs?datatype=ndt7&experiment=ndt")
    page.get_by_role("link", name="Date").click()
    first = column(page, 1)
    assert first == sorted(first, reverse=True)
    assert first[0] == str(YESTERDAY)
    page.get_by_role("link", name="next →").click()
    expect(page.locator(".pages")).to_contain_text("101–200")
    second = column(page, 1)
    assert second == sorted(second, reverse=True)
    assert second[0] <= first[-1]
    assert parse_qs(urlsplit(page.url).query) == {
        "datatype": ["ndt7"],
        "experiment": ["ndt"],
        "sort": ["date"],
        "page": ["1"],
    }
    page.get_by_role("link", name="← previous").click()
    assert column(page, 1) == first
    page.get_by_role("link", name="Date").click()
    assert column(page, 1) == sorted(column(page, 1))
    assert column(page, 1)[0] < "2022"
    expect(page.get_by_role("link", name="← previous")).to_have_count(0)


def test_every_job_is_on_one_page(new_page: NewPage, store: JobStore) -> None:
    page = new_page(f"/jobs?state=failed&page={store.counts()[JobState.FAILED] // 100}")
    expect(page.get_by_role("link", name="next →")).to_have_count(0)
    shown = (store.counts()[JobState.FAILED] - 1) % 100 + 1
    expect(page.locator("tbody tr")).to_have_count(shown)


def test_a_jobs_page(new_page: NewPage, store: JobStore) -> None:
    [job] = store.jobs(states={JobState.JOINING}, limit=1)
    page = new_page(f"/job/{job.number}")
    history = page.locator("tbody").first
    assert history.locator(".state").all_inner_texts() == [
        "queued", "init", "parsing", "postProcessing", "loading", "deduplicating", "copying",
        "deleting", "joining",
    ]  # fmt: skip
    assert "min" in history.locator("tr").first.inner_text()
    expect(page.locator("td", has_text="the daily schedule")).to_have_count(1)
    operations = page.locator("tbody").last.locator("tr")
    assert [row.split()[2] for row in operations.all_inner_texts()] == [
        "load", "dedup", "copy", "delete",
    ]  # fmt: skip
    expect(operations.nth(1)).to_contain_text("4,321.5")
    run = page.locator("dl").get_by_role("link", name=job.run_id)
    links = Links(dagster_url="http://dagster.example:3000")
    assert run.get_attribute("href") == links.run(job.run_id)
    page.get_by_role("link", name="JSON").click()
    assert json.loads(page.inner_text("body"))["run_id"] == job.run_id


def test_a_page_refreshes_itself_and_keeps_its_filters(new_page: NewPage, site: Site) -> None:
    page = new_page("/sources")

    def hurry(route: Route) -> None:
        answer = route.fetch()
        text = answer.text()
        assert 'http-equiv="refresh" content="60"' in text
        route.fulfill(response=answer, body=text.replace('content="60"', 'content="1"'))

    page.route("**/jobs?*", hurry)
    page.goto("/jobs?experiment=ndt&state=failed&sort=-date")
    before, rows = page.url, column(page, 1)
    expect(page.locator(".clock time")).to_have_text("2024-03-31 14:00:00")
    try:
        site.now = FILLED_NOW + dt.timedelta(minutes=1)
        expect(page.locator(".clock time")).to_have_text("2024-03-31 14:01:00")
    finally:
        site.now = FILLED_NOW
    assert (page.url, column(page, 1)) == (before, rows)
    assert page.get_by_label("Experiment").input_value() == "ndt"


def test_it_works_without_javascript(new_page: NewPage) -> None:
    page = new_page("/", scripts=False)
    page.get_by_role("link", name="failed", exact=False).last.click()
    page.get_by_role("link", name="Jobs", exact=True).click()
    page.get_by_label("State").select_option("queued")
    page.get_by_role("button", name="Show").click()
    assert set(column(page, 3)) == {"queued"}
    page.locator("tbody a").first.click()
    expect(page.locator("h1")).to_contain_text("queued")


@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_is_wider_than_the_window(new_page: NewPage, store: JobStore, width: int) -> None:
    [failed] = store.jobs(states={JobState.FAILED}, text="has the field", limit=1)
    [joining] = store.jobs(states={JobState.JOINING}, limit=1)
    page = new_page(width=width)
    for path in (*PAGES, f"/job/{failed.number}", f"/job/{joining.number}"):
        page.goto(path)
        assert page.evaluate(OVERFLOWING) == [], path


def test_a_phone_shows_the_newest_days(new_page: NewPage) -> None:
    page = new_page(width=390)
    newest = page.locator(".grid tbody tr").first.locator("td").last
    newest.scroll_into_view_if_needed()
    box = newest.bounding_box()
    assert box is not None
    assert 300 < box["x"] + box["width"] <= 390
    assert page.evaluate("document.querySelector('.days').scrollLeft") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_schemes_can_be_read(new_page: NewPage, store: JobStore, scheme: str) -> None:
    [job] = store.jobs(states={JobState.FAILED}, limit=1)
    page = new_page(scheme=scheme)
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    shade = sum(map(int, re.findall(r"\d+", back))) / 3
    assert shade < 60 if scheme == "dark" else shade > 200
    for path in (*PAGES, f"/job/{job.number}"):
        page.goto(path)
        assert page.evaluate(CONTRASTS) == [], path
