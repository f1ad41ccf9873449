import datetime as dt
import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape as html_unescape
from urllib.parse import quote

import pytest
from page_text import LATER, rows, text_of
from starlette.testclient import TestClient

from gardener_api.config import GardenerConfig
from gardener_api.jobs.job import JobKey, JobRequest, JobState
from gardener_api.jobs.parser_calls import Error, Update
from gardener_api.links import Links
from gardener_api.status.filters import PAGE
from gardener_api.status.pages import create_status_app
from gardener_api.store import schema
from gardener_api.store.engine import writing
from gardener_api.store.store import JobStore
from gardener_api.store.tables.check_results import CheckResult
from gardener_api.store.tables.tables_backfills import TablesTarget

Wanted = Callable[..., JobRequest]
MakeKey = Callable[..., JobKey]
EVIL = "<script>alert('x')</script> & \"quotes\"; DROP TABLE jobs; --"


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
        wanted: Wanted,
        make_key: MakeKey,
        now: dt.datetime,
    ) -> None:
        store.enqueue([wanted(1, archives=0), wanted(2)], now=now)
        store.stage(make_key(1), JobState.LOADING, run_id="t", now=now)
        store.fail_stage(make_key(1), "No such field: x. What to do: add it.", run_id="t", now=now)
        html = client.get("/").text
        text = text_of(html)
        assert "What is wrong now: 2 problems No parser asks for jobs: 1 job queued" in text
        assert "1 job failed in loading: ndt/ndt7 No such field: x. Add it." in text
        assert '<a href="/job/1">ndt/ndt7 2024-03-01</a>' in html
        assert "<title>2 wrong – Gardener</title>" in html

    def test_counts_lead_to_the_list(
        self, client: TestClient, store: JobStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        store.enqueue([wanted(day) for day in (1, 2, 3)], now=now)
        html = client.get("/").text
        assert re.search(r'href="/jobs\?state=queued"><b>3</b>\s*<span class="state queued">', html)
        assert '<meta http-equiv="refresh" content="15">' in html

    def test_grid(
        self,
        client: TestClient,
        store: JobStore,
        wanted: Wanted,
        make_key: MakeKey,
        now: dt.datetime,
    ) -> None:
        store.enqueue([wanted(1, archives=0)], now=now)
        store.stage(make_key(1), JobState.LOADING, run_id="t", now=now)
        html = client.get("/").text
        [annotation2, ndt7] = rows(html)
        assert annotation2.split() == ["ndt/annotation2", *"·" * 30]
        assert ndt7.split() == ["ndt/ndt7", *"·" * 29, "t"]
        cell = 'class="sign loading" href="/job/1" title="ndt/ndt7 2024-03-01: loading">t</a>'
        assert cell in html

    def test_a_missing_day_in_the_grid(
        self, store: JobStore, config: GardenerConfig, wanted: Wanted, now: dt.datetime
    ) -> None:
        store.enqueue([wanted(1)], now=now - dt.timedelta(hours=1))
        next_day = now + dt.timedelta(days=1, hours=3)
        client = TestClient(create_status_app(config, store, clock=lambda: next_day))
        html = client.get("/").text
        [annotation2, ndt7] = rows(html)
        assert annotation2.split()[-2:] == ["?", "?"]
        assert ndt7.split()[-2:] == ["q", "?"]
        assert "3 days are missing: no job was made" in html

    def test_parsers(
        self, client: TestClient, store: JobStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        store.enqueue([wanted(1)], now=now)
        store.lease(1, parser="10.0.0.7", now=now)
        text = text_of(client.get("/").text)
        assert "10.0.0.7 1 2024-03-02 10:30:00 3 h 12 min ago" in text


class TestChecks:
    @pytest.fixture(autouse=True)
    def checked(self, store: JobStore, wanted: Wanted, make_key: MakeKey, now: dt.datetime) -> None:
        """A date with a warning and a passed check, made by the run t."""
        store.enqueue([wanted(1, archives=0)], now=now)
        for state in (JobState.LOADING, JobState.COMPLETE):
            store.stage(make_key(1), state, run_id="t", now=now)
        warning = CheckResult(
            table="raw_ndt.ndt7",
            name="rows_of_week",
            passed=False,
            severity="warn",
            description=EVIL,
            metadata={"rows": 3},
        )
        passed = replace(warning, name="unique_keys", passed=True, description="", metadata={})
        store.checks.record(make_key(1), [warning, passed], run_id="t", now=now)

    def test_the_grid_marks_the_date(self, client: TestClient) -> None:
        html = client.get("/").text
        cell = (
            'class="sign complete marked warn" href="/job/1" title="ndt/ndt7 2024-03-01: complete;'
            ' warnings of checks: rows_of_week">✓!</a>'
        )
        assert cell in html
        assert "The check rows_of_week has not passed on 1 date: ndt/ndt7" in html

    def test_the_page_of_the_job_lists_them(self, client: TestClient) -> None:
        text = text_of(client.get("/job/1").text)
        assert "2024-03-02 10:30:00 raw_ndt.ndt7 rows_of_week ! warning" in text
        assert "2024-03-02 10:30:00 raw_ndt.ndt7 unique_keys ✓ passed" in text
        assert "rows: 3" in text
        assert EVIL not in client.get("/job/1").text

    def test_json_has_them(self, client: TestClient) -> None:
        warning = {
            "table": "raw_ndt.ndt7",
            "name": "rows_of_week",
            "passed": False,
            "severity": "warn",
            "description": EVIL,
            "metadata": {"rows": 3},
            "run_id": "t",
            "at": "2024-03-02T10:30:00+00:00",
        }
        checks = client.get("/api/jobs/1").json()["checks"]
        assert [check["name"] for check in checks] == ["rows_of_week", "unique_keys"]
        assert checks[0] == warning
        [job] = client.get("/api/jobs").json()["jobs"]
        assert job["failing_checks"] == [warning]


def test_how_far_the_runs_of_the_tables_are(
    client: TestClient, store: JobStore, wanted: Wanted, make_key: MakeKey, now: dt.datetime
) -> None:
    assert "Runs that are making tables" not in client.get("/").text
    store.enqueue([wanted(day, archives=0) for day in (1, 2, 3)], now=now)
    for day in (1, 2, 3):
        store.stage(make_key(day), JobState.LOADING, run_id="c0ffee00-run", now=now)
    store.stage(make_key(3), JobState.COMPLETE, run_id="c0ffee00-run", now=now)
    text = text_of(client.get("/").text)
    assert (
        "c0ffee00 ndt/ndt7 2024-03-01 to 2024-03-03 2 loading , 1 complete 3 h 12 min ago" in text
    )


def test_how_far_a_backfill_is_and_when_it_will_end(
    client: TestClient, store: JobStore, wanted: Wanted, make_key: MakeKey, now: dt.datetime
) -> None:
    assert "Backfills" not in client.get("/").text
    of = {"requester": "backfill/abcdefgh", "backfill_id": "abcdefgh", "archives": 0}
    store.enqueue([wanted(day, **of) for day in range(1, 11)], now=now)
    text = text_of(client.get("/").text)
    assert "0 of 10 0.0 an hour not known: no job ended lately" in text
    for day in (1, 2):
        store.stage(make_key(day), JobState.LOADING, run_id="t", now=now)
    store.stage(make_key(1), JobState.COMPLETE, run_id="t", now=now)
    store.fail_stage(make_key(2), "no", run_id="t", now=now)
    text = text_of(client.get("/").text)
    assert "Backfills Backfill Source Dates Done Rate Expected end abcdefgh ndt/ndt7" in text
    # Two in 3 h 12 min, and eight are left.
    assert "2024-03-01 to 2024-03-10 1 of 10, 1 failed 0.6 an hour in 12 h 48 min" in text


def test_how_far_a_backfill_of_tables_alone_is(
    client: TestClient, store: JobStore, make_key: MakeKey, now: dt.datetime
) -> None:
    key = make_key(1)
    target = TablesTarget(source="ndt/ndt7", table="ndt.ndt7", dates=[key.date, make_key(2).date])
    store.tables_backfills.note("abcdefgh", [target], began=now)
    store.tables.record_partition(
        "ndt.ndt7", key.date, rows=1, run_id="t", requester="backfill/abcdefgh", now=now
    )
    text = text_of(client.get("/").text)
    assert "abcdefgh ndt/ndt7 tables only 2024-03-01 to 2024-03-02 1 of 2 0.3 an hour" in text


def test_the_rows_of_a_source_by_day(
    client: TestClient, store: JobStore, wanted: Wanted, make_key: MakeKey, now: dt.datetime
) -> None:
    store.enqueue([wanted(1, archives=0)], now=now)
    store.stage(make_key(1), JobState.LOADING, run_id="t", now=now)
    store.fail_stage(make_key(1), "no", run_id="t", now=now)
    date = dt.date(2024, 2, 28)
    store.tables.record_partition("raw_ndt.ndt7", date, rows=12345, run_id="t", now=now)
    html = client.get("/sources/ndt/ndt7").text
    assert '<title>2024-02-28: 12,345 rows</title><rect class="rows"' in html
    assert "Failed (1): 2024-03-01" in text_of(html)
    assert "Missing (1): 2024-02-29" in text_of(html)
    assert 'href="/sources/ndt/ndt7"' in client.get("/sources").text
    unknown = client.get("/sources/ndt/ndt9")
    assert (unknown.status_code, "no source 'ndt/ndt9'" in html_unescape(unknown.text)) == (
        404,
        True,
    )


class TestJob:
    @pytest.fixture
    def job_page(
        self, store: JobStore, config: GardenerConfig, wanted: Wanted, now: dt.datetime
    ) -> str:
        """A job that a backfill and a run asked for, failed in loading."""
        store.enqueue(
            [wanted(requester="backfill/bf", backfill_id="bf", covers_tables=True)], now=now
        )
        store.enqueue([wanted(run_id="b")], now=now)
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
        assert "2024-03-02 10:30:00 backfill bf with tables backfill/bf not yet" in text
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
        self, client: TestClient, store: JobStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        store.enqueue([wanted()], now=now)
        html = client.get("/job/1").text
        assert set(re.findall(r'href="https?://([^/"]*)', html)) == {"console.cloud.google.com"}
        assert "tmp_ndt.ndt7$20240301, raw_ndt.ndt7$20240301, ndt.ndt7$20240301" in text_of(html)

    def test_the_schedule_and_an_open_state(
        self, client: TestClient, store: JobStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        store.enqueue([wanted(daily=True)], now=now)
        html = client.get("/job/1").text
        assert rows(html) == ["2024-03-02 10:30:00 queued 3 h 12 min 1"]
        assert "2024-03-02 10:30:00 the daily schedule a not yet" in text_of(html)

    def test_other_jobs_of_the_date(
        self, client: TestClient, store: JobStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        store.enqueue([wanted()], now=now)
        store.withdraw("a", by="x", now=now)
        store.enqueue([wanted(requester="run:b")], now=now)
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
        self, client: TestClient, store: JobStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        store.enqueue([wanted(day) for day in range(1, PAGE + 2)], now=now)
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
        self, client: TestClient, store: JobStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        store.enqueue([wanted()], now=now)
        [job] = store.lease(1, parser="10.0.0.7", now=now + LATER)
        answer = client.get(f"/api/jobs/{job.number}").json()
        assert (answer["state"], answer["parser"]) == ("init", "10.0.0.7")
        assert [event["state"] for event in answer["events"]] == ["queued", "init"]
        assert answer["events"][1]["seconds"] == LATER.total_seconds()
        assert [asked["requester"] for asked in answer["requests"]] == ["run:a"]
        assert answer["operations"] == []


def test_text_stays_text(
    client: TestClient, store: JobStore, wanted: Wanted, now: dt.datetime
) -> None:
    store.enqueue([wanted(filter=EVIL)], now=now)
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
    assert "The job store does not answer, and" in response.text
    assert "What to do: see whether its database runs" in response.text.replace("&#39;", "'")
    assert "gardener.db" not in response.text
    if not path.startswith("/api/"):
        assert 'http-equiv="refresh"' in response.text
