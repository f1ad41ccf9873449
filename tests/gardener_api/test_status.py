import datetime as dt
import re
from collections.abc import Callable
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from gardener_api import schema
from gardener_api.calls import Error, Update
from gardener_api.config import GardenerConfig
from gardener_api.database import writing
from gardener_api.filters import PAGE
from gardener_api.jobs import Ask, JobKey, JobState
from gardener_api.links import Links
from gardener_api.status import create_status_app
from gardener_api.store import JobStore

MakeAsk = Callable[..., Ask]
MakeKey = Callable[..., JobKey]
EVIL = "<script>alert('x')</script> & \"quotes\"; DROP TABLE jobs; --"
LATER = dt.timedelta(hours=3, minutes=12)


@pytest.fixture
def client(store: JobStore, config: GardenerConfig, now: dt.datetime) -> TestClient:
    return TestClient(create_status_app(config, store, clock=lambda: now + LATER))


def text_of(html: str) -> str:
    """What a reader sees."""
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", html, flags=re.DOTALL).split())


def rows(html: str) -> list[str]:
    """The text of each row of the first table."""
    body = re.search(r"<tbody>(.*?)</tbody>", html, re.DOTALL)
    return [text_of(row) for row in re.findall(r"<tr>(.*?)</tr>", body[1] if body else "", re.S)]


class TestOverview:
    def test_empty(self, client: TestClient) -> None:
        response = client.get("/")
        assert response.status_code == 200
        assert "Nothing is wrong." in response.text
        assert "No parser has had a job yet." in response.text
        assert client.get("/status").text == response.text

    def test_problems(
        self,
        client: TestClient,
        store: JobStore,
        make_ask: MakeAsk,
        make_key: MakeKey,
        now: dt.datetime,
    ) -> None:
        store.enqueue([make_ask(1, archives=0), make_ask(2)], now=now)
        store.stage(make_key(1), JobState.LOADING, run_id="t", now=now)
        store.fail_stage(make_key(1), "No such field: x. What to do: add it.", run_id="t", now=now)
        html = client.get("/").text
        text = text_of(html)
        assert "What is wrong now: 2 problems No parser asks for jobs: 1 job queued" in text
        assert "1 job failed in loading: ndt/ndt7 No such field: x. Add it." in text
        assert '<a href="/job/1">ndt/ndt7 2024-03-01</a>' in html
        assert "<title>2 wrong – Gardener</title>" in html

    def test_counts_lead_to_the_list(
        self, client: TestClient, store: JobStore, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        store.enqueue([make_ask(day) for day in (1, 2, 3)], now=now)
        html = client.get("/").text
        assert re.search(r'href="/jobs\?state=queued"><b>3</b>\s*<span class="state queued">', html)
        assert '<meta http-equiv="refresh" content="15">' in html

    def test_grid(
        self,
        client: TestClient,
        store: JobStore,
        make_ask: MakeAsk,
        make_key: MakeKey,
        now: dt.datetime,
    ) -> None:
        store.enqueue([make_ask(1, archives=0)], now=now)
        store.stage(make_key(1), JobState.LOADING, run_id="t", now=now)
        html = client.get("/").text
        [annotation2, ndt7] = rows(html)
        assert annotation2.split() == ["ndt/annotation2", *"·" * 30]
        assert ndt7.split() == ["ndt/ndt7", *"·" * 29, "t"]
        cell = 'class="sign loading" href="/job/1" title="ndt/ndt7 2024-03-01: loading">t</a>'
        assert cell in html

    def test_a_missing_day_in_the_grid(
        self, store: JobStore, config: GardenerConfig, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        store.enqueue([make_ask(1)], now=now - dt.timedelta(hours=1))
        next_day = now + dt.timedelta(days=1, hours=3)
        client = TestClient(create_status_app(config, store, clock=lambda: next_day))
        html = client.get("/").text
        [annotation2, ndt7] = rows(html)
        assert annotation2.split()[-2:] == ["?", "?"]
        assert ndt7.split()[-2:] == ["q", "?"]
        assert "3 days are missing: no job was made" in html

    def test_parsers(
        self, client: TestClient, store: JobStore, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        store.enqueue([make_ask(1)], now=now)
        store.lease(1, parser="10.0.0.7", now=now)
        text = text_of(client.get("/").text)
        assert "10.0.0.7 1 2024-03-02 10:30:00 3 h 12 min ago" in text


class TestList:
    def test_empty(self, client: TestClient) -> None:
        assert "No jobs yet" in client.get("/jobs").text
        assert "No jobs that match" in client.get("/jobs?experiment=wehe").text
        assert "There are no more jobs" in client.get("/jobs?page=3").text

    def test_a_job_with_state_detail_error_and_duration(
        self, client: TestClient, store: JobStore, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        store.enqueue([make_ask()], now=now)
        [job] = store.lease(1, now=now)
        store.apply([Error(job.id, "no disk")], now=now)
        [job] = store.lease(1, parser="10.0.0.7", now=now)
        store.apply([Update(job.id, "parsing", "ndt/ndt7/a.tgz")], now=now)
        [row] = rows(client.get("/jobs").text)
        assert row == (
            "2024-03-01 ndt/ndt7 parsing 2024-03-02 10:30:00 3 h 12 min 2"
            " ndt/ndt7/a.tgz last error: no disk 10.0.0.7 2024-03-02 10:30:00"
        )

    def test_a_failed_job_says_where(
        self,
        client: TestClient,
        store: JobStore,
        make_ask: MakeAsk,
        make_key: MakeKey,
        now: dt.datetime,
    ) -> None:
        store.enqueue([make_ask(archives=0)], now=now)
        store.stage(make_key(), JobState.LOADING, run_id="t", now=now)
        store.fail_stage(make_key(), "No such field: x", run_id="t", now=now)
        [row] = rows(client.get("/jobs").text)
        assert "failed in loading 2024-03-02 10:30:00" in row
        assert "No such field: x" in row

    def test_filters(
        self, client: TestClient, store: JobStore, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        store.enqueue([make_ask(1), make_ask(2)], now=now)
        store.lease(1, now=now)
        assert len(rows(client.get("/jobs").text)) == 2
        for query, dates in (
            ("date=2024-03-02", ["2024-03-02"]),
            ("from=2024-03-02", ["2024-03-02"]),
            ("to=2024-03-01", ["2024-03-01"]),
            ("state=init", ["2024-03-01"]),
            ("state=init,queued", ["2024-03-01", "2024-03-02"]),
            ("text=20240302", ["2024-03-02"]),
            ("text=NDT7/2024030", ["2024-03-01", "2024-03-02"]),
            ("experiment=ndt&datatype=ndt7&state=&from=&text=", ["2024-03-01", "2024-03-02"]),
        ):
            found = rows(client.get(f"/jobs?{query}").text)
            assert sorted(row[:10] for row in found) == dates, query

    @pytest.mark.parametrize(
        ("query", "message"),
        [
            ("state=nonsense", "state 'nonsense': expected one of queued, init"),
            ("date=yesterday", "date 'yesterday': expected a date like 2024-03-01"),
            ("page=x", "page 'x': expected a number"),
            ("page=-1", "page '-1': expected a number from 0 to"),
            ("page=99999999999999999999", "expected a number from 0 to"),
            ("sort=rank", "sort 'rank': expected one of recent"),
        ],
    )
    def test_bad_filters(self, client: TestClient, query: str, message: str) -> None:
        response = client.get(f"/jobs?{query}")
        assert response.status_code == 400
        assert message in response.text.replace("&#39;", "'")
        assert "http-equiv" not in response.text, "it will not become better"
        answer = client.get(f"/api/jobs?{query}")
        assert answer.status_code == 400
        assert message in answer.json()["error"]

    @pytest.mark.parametrize("query", ["text=%00", "experiment=%00", "text=%ED%A0%80", "text=%25_"])
    def test_any_text_can_be_searched(self, client: TestClient, query: str) -> None:
        assert client.get(f"/jobs?{query}").status_code == 200

    def test_pages(
        self, client: TestClient, store: JobStore, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        store.enqueue([make_ask(day) for day in range(1, PAGE + 6)], now=now)
        first, second = client.get("/jobs?state=queued"), client.get("/jobs?state=queued&page=1")
        assert (len(rows(first.text)), len(rows(second.text))) == (PAGE, 5)
        assert 'rel="next" href="/jobs?state=queued&amp;page=1"' in first.text
        assert 'rel="prev"' not in first.text
        assert 'rel="next"' not in second.text
        assert 'rel="prev" href="/jobs?state=queued"' in second.text
        assert "101–105" in second.text

    def test_sorting(
        self, client: TestClient, store: JobStore, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        store.enqueue([make_ask(day) for day in (2, 1, 3)], now=now)
        store.lease(1, now=now + LATER)
        for query, order in (
            ("", "132"),
            ("sort=-recent", "231"),
            ("sort=date", "321"),
            ("sort=-date", "123"),
            ("sort=source", "321"),
            ("sort=state", "123"),
            ("sort=-state", "321"),
        ):
            found = rows(client.get(f"/jobs?{query}").text)
            assert "".join(row[9] for row in found) == order, query
        html = client.get("/jobs?sort=date&text=ndt").text
        assert 'aria-sort="descending"><a href="/jobs?text=ndt&amp;sort=-date">Date ↓' in html


class TestJob:
    @pytest.fixture
    def job_page(
        self, store: JobStore, config: GardenerConfig, make_ask: MakeAsk, now: dt.datetime
    ) -> str:
        """A job that a backfill and a run asked for, failed in loading."""
        store.enqueue(
            [make_ask(requester="backfill/bf", backfill_id="bf", covers_tables=True)], now=now
        )
        store.enqueue([make_ask(run_id="b")], now=now)
        [job] = store.lease(1, parser="10.0.0.7", now=now + dt.timedelta(minutes=2))
        store.apply([Update(job.id, "postProcessing")], now=now + dt.timedelta(hours=1))
        at = now + dt.timedelta(hours=2)
        store.stage(job.key, JobState.LOADING, run_id="t", now=at)
        store.tables.record_operation(
            key=job.key,
            table="tmp_ndt.ndt7",
            operation="load",
            run_id="t",
            bq_job_ids=["gardener_load_1"],
            rows=1234,
            bytes=5_600_000,
            slot_seconds=1.5,
            bytes_billed=0,
            seconds=2.5,
            now=now,
        )
        store.fail_stage(job.key, "no such field. What to do: add it.", run_id="t", now=at)
        links = Links(dagster_url="http://dagster:3000", project="mlab")
        app = create_status_app(config, store, clock=lambda: now + LATER, links=links)
        return TestClient(app).get(f"/job/{job.number}").text

    def test_everything_that_happened(self, job_page: str) -> None:
        assert rows(job_page) == [
            "2024-03-02 10:30:00 queued 2 min 1",
            "2024-03-02 10:32:00 init 58 min 1",
            "2024-03-02 11:30:00 postProcessing 1 h 1",
            "2024-03-02 12:30:00 loading 1",
            "2024-03-02 12:30:00 failed 1 no such field. What to do: add it.",
        ]
        text = text_of(job_page)
        assert "failed in loading, since 2024-03-02 12:30:00" in text
        assert "What to do Add it." in text
        assert "gs://archive-mlab-oti/ndt/ndt7/2024/03/01/ : 3 when it was asked for" in text
        assert "load tmp_ndt.ndt7 1,234 5.6 MB 0 B 2.5 s 1.5 gardener_load_1" in text

    def test_who_asked(self, job_page: str) -> None:
        text = text_of(job_page)
        assert "2024-03-02 10:30:00 backfill bf with tables a not yet" in text
        assert "2024-03-02 10:30:00 a run b not yet" in text

    def test_links(self, job_page: str) -> None:
        dagster, console = "http://dagster:3000", "https://console.cloud.google.com"
        at_once = "live-data-batch-size=100"
        for link in (
            f"{dagster}/asset-groups?{at_once}",
            *(f"{dagster}/runs/{run}?{at_once}" for run in ("t", "b", "b/bf")),
            f"{dagster}/assets/parsed/ndt/ndt7?view=partitions&partition=2024-03-01&{at_once}",
            f"{dagster}/assets/ndt/ndt7?view=partitions&partition=2024-03-01&{at_once}",
            f"{console}/bigquery?project=mlab&p=mlab&d=raw_ndt&t=ndt7&page=table",
            f"{console}/storage/browser/archive-mlab-oti/ndt/ndt7/2024/03/01/",
        ):
            assert f'href="{link.replace("&", "&amp;")}"' in job_page

    def test_links_that_nobody_gave(
        self, client: TestClient, store: JobStore, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        store.enqueue([make_ask()], now=now)
        html = client.get("/job/1").text
        assert set(re.findall(r'href="https?://([^/"]*)', html)) == {"console.cloud.google.com"}
        assert "tmp_ndt.ndt7$20240301, raw_ndt.ndt7$20240301, ndt.ndt7$20240301" in text_of(html)

    def test_the_schedule_and_an_open_state(
        self, client: TestClient, store: JobStore, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        store.enqueue([make_ask(daily=True)], now=now)
        html = client.get("/job/1").text
        assert rows(html) == ["2024-03-02 10:30:00 queued 3 h 12 min 1"]
        assert "2024-03-02 10:30:00 the daily schedule a not yet" in text_of(html)

    def test_other_jobs_of_the_date(
        self, client: TestClient, store: JobStore, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        store.enqueue([make_ask()], now=now)
        store.withdraw("run:a", now=now)
        store.enqueue([make_ask(requester="run:b")], now=now)
        html = client.get("/job/2").text
        assert "all parses: 2 queued , 1 withdrawn" in text_of(html)
        assert '<a href="/job/1">1</a>' in html

    @pytest.mark.parametrize("number", ["99", "99999999999999999999999"])
    def test_no_such_job(self, client: TestClient, number: str) -> None:
        response = client.get(f"/job/{number}")
        assert response.status_code == 404
        assert f"there is no job number {number}" in response.text
        answer = client.get(f"/api/jobs/{number}")
        assert answer.status_code == 404
        assert answer.json() == {"error": f"there is no job number {number}"}


class TestJson:
    def test_list(
        self, client: TestClient, store: JobStore, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        store.enqueue([make_ask(day) for day in range(1, PAGE + 2)], now=now)
        answer = client.get("/api/jobs?sort=-date&experiment=ndt").json()
        assert len(answer["jobs"]) == PAGE
        assert answer["next"] == "/api/jobs?experiment=ndt&sort=-date&page=1"
        first = answer["jobs"][0]
        assert first["id"] == "archive-mlab-oti/ndt/ndt7/20240301"
        assert (first["date"], first["state"], first["priority"], first["created"]) == (
            "2024-03-01",
            "queued",
            "backfill",
            "2024-03-02T10:30:00+00:00",
        )
        rest = client.get(answer["next"]).json()
        assert ([job["number"] for job in rest["jobs"]], rest["next"]) == ([PAGE + 1], None)

    def test_job(
        self, client: TestClient, store: JobStore, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        store.enqueue([make_ask()], now=now)
        [job] = store.lease(1, parser="10.0.0.7", now=now + LATER)
        answer = client.get(f"/api/jobs/{job.number}").json()
        assert (answer["state"], answer["parser"]) == ("init", "10.0.0.7")
        assert [event["state"] for event in answer["events"]] == ["queued", "init"]
        assert answer["events"][1]["seconds"] == LATER.total_seconds()
        assert [asked["requester"] for asked in answer["requests"]] == ["run:a"]
        assert answer["operations"] == []


def test_text_stays_text(
    client: TestClient, store: JobStore, make_ask: MakeAsk, now: dt.datetime
) -> None:
    store.enqueue([make_ask(filter=EVIL)], now=now)
    [job] = store.lease(1, parser=EVIL, now=now)
    store.apply([Update(job.id, "parsing", EVIL)], now=now)
    store.apply([Error(job.id, EVIL)], now=now)
    evil = quote(EVIL)
    pages = ["/", "/jobs", f"/job/{job.number}", f"/jobs?text={evil}", f"/jobs?experiment={evil}"]
    for page in (*pages, f"/jobs?state={evil}"):
        html = client.get(page).text
        assert "<script" not in html
        assert '"quotes"' not in html
        assert "&#34;quotes&#34;" in html


def test_sources(client: TestClient) -> None:
    html = client.get("/sources").text
    assert "tmp_ndt.ndt7, raw_ndt.ndt7, ndt.ndt7" in html
    assert "A parser may be silent for 5 h" in text_of(html)


def test_nothing_can_be_changed_here(client: TestClient) -> None:
    pages = ("/", "/status", "/jobs", "/job/1", "/sources", "/api/jobs", "/api/jobs/1")
    for path in (*pages, "/v2/job/next", "/job", "/update"):
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert client.request(method, path).status_code in (404, 405)


@pytest.mark.parametrize("path", ["/", "/jobs", "/sources"])
def test_nothing_from_elsewhere_is_loaded(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.headers["content-security-policy"].startswith("default-src 'none'")
    assert not re.search(r"<script|<link|src=|https?://", response.text)


@pytest.mark.parametrize("path", ["/", "/jobs", "/job/1", "/api/jobs", "/api/jobs/1"])
def test_a_store_that_fails(client: TestClient, store: JobStore, path: str) -> None:
    with writing(store._engine).begin() as connection:
        for table in (schema.operations, schema.requests, schema.events, schema.jobs):
            table.drop(connection)
    response = client.get(path)
    assert response.status_code == 503
    assert "The job store does not answer (" in response.text
    assert "What to do: see whether its database runs" in response.text.replace("&#39;", "'")
    assert "gardener.db" not in response.text
    if not path.startswith("/api/"):
        assert 'http-equiv="refresh"' in response.text
