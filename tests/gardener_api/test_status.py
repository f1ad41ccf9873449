import datetime as dt
import re
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from gardener_api.calls import Error, Update
from gardener_api.config import GardenerConfig
from gardener_api.jobs import Ask, JobKey, JobState
from gardener_api.status import PAGE, create_status_app, human_bytes, human_duration
from gardener_api.store import JobStore

MakeAsk = Callable[..., Ask]
MakeKey = Callable[..., JobKey]
EVIL = "<script>alert('x')</script> & \"quotes\"; DROP TABLE jobs; --"


@pytest.fixture
def client(store: JobStore, config: GardenerConfig, now: dt.datetime) -> TestClient:
    later = now + dt.timedelta(hours=3, minutes=12)
    return TestClient(create_status_app(config, store, clock=lambda: later))


def rows(html: str) -> list[str]:
    """The text of each row of the first table."""
    body = re.search(r"<tbody>(.*?)</tbody>", html, re.DOTALL)
    assert body
    return [
        " ".join(re.sub(r"<[^>]*>", " ", row).split())
        for row in re.findall(r"<tr>(.*?)</tr>", body[1], re.DOTALL)
    ]


class TestList:
    def test_empty(self, client: TestClient) -> None:
        response = client.get("/")
        assert response.status_code == 200
        assert "No jobs yet" in response.text
        assert client.get("/status").text.replace('"/status?', '"/?') == response.text

    def test_a_job_with_state_detail_error_and_duration(
        self, client: TestClient, store: JobStore, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        store.enqueue([make_ask()], now=now)
        [job] = store.lease(1, now=now)
        store.apply([Error(job.id, "no disk")], now=now)
        [job] = store.lease(1, parser="10.0.0.7", now=now)
        store.apply([Update(job.id, "parsing", "ndt/ndt7/a.tgz")], now=now)
        [row] = rows(client.get("/").text)
        assert row == (
            "2024-03-01 ndt/ndt7 archive-mlab-oti parsing 2024-03-02 10:30:00 3 h 12 min 2"
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
        [row] = rows(client.get("/").text)
        assert "failed in loading 2024-03-02 10:30:00" in row
        assert "No such field: x" in row

    def test_text_stays_text(
        self, client: TestClient, store: JobStore, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        store.enqueue([make_ask(filter=EVIL)], now=now)
        [job] = store.lease(1, parser=EVIL, now=now)
        store.apply([Update(job.id, "parsing", EVIL)], now=now)
        store.apply([Error(job.id, EVIL)], now=now)
        for page in ("/", f"/job/{job.number}", f"/?text={EVIL}", f"/?experiment={EVIL}"):
            html = client.get(page).text
            assert "<script" not in html
            assert '"quotes"' not in html
            assert "&#34;quotes&#34;" in html or "experiment=" in page

    def test_filters(
        self, client: TestClient, store: JobStore, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        store.enqueue([make_ask(1), make_ask(2)], now=now)
        store.lease(1, now=now)
        assert len(rows(client.get("/").text)) == 2
        for query, dates in (
            ("date=2024-03-02", ["2024-03-02"]),
            ("state=init", ["2024-03-01"]),
            ("text=20240302", ["2024-03-02"]),
            ("experiment=ndt&datatype=ndt7&state=&date=&text=", ["2024-03-01", "2024-03-02"]),
        ):
            found = rows(client.get(f"/?{query}").text)
            assert sorted(row[:10] for row in found) == dates
        assert "No jobs that match" in client.get("/?experiment=wehe").text

    @pytest.mark.parametrize(
        ("query", "message"),
        [
            ("state=nonsense", "state 'nonsense': expected one of queued, init"),
            ("date=yesterday", "date 'yesterday': expected like 2024-03-01"),
            ("page=x", "page 'x': expected a number"),
            ("page=-1", "page -1: expected 0 to"),
            ("page=99999999999999999999", "expected 0 to"),
        ],
    )
    def test_bad_filters(self, client: TestClient, query: str, message: str) -> None:
        response = client.get(f"/?{query}")
        assert response.status_code == 400
        assert message in response.text

    @pytest.mark.parametrize("query", ["text=%00", "experiment=%00", "text=%ED%A0%80", "text=%25_"])
    def test_any_text_can_be_searched(self, client: TestClient, query: str) -> None:
        assert client.get(f"/?{query}").status_code == 200

    def test_pages(
        self, client: TestClient, store: JobStore, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        store.enqueue([make_ask(day) for day in range(1, PAGE + 6)], now=now)
        first, second = client.get("/?state=queued"), client.get("/?state=queued&page=1")
        assert (len(rows(first.text)), len(rows(second.text))) == (PAGE, 5)
        assert 'href="/?state=queued&amp;page=1"' in first.text
        assert "previous</a>" not in first.text
        assert "next →" not in second.text
        assert 'href="/?state=queued&amp;page=0"' in second.text

    def test_counts_and_sources(
        self, client: TestClient, store: JobStore, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        store.enqueue([make_ask(day) for day in (1, 2, 3)], now=now)
        html = client.get("/").text
        assert re.search(r'<b>3</b> <span class="state queued">queued', html)
        assert "3 parse jobs" in html
        assert "tmp_ndt.ndt7, raw_ndt.ndt7, ndt.ndt7" in html
        assert '<meta http-equiv="refresh" content="15">' in html


class TestJob:
    def test_everything_that_happened(
        self, client: TestClient, store: JobStore, make_ask: MakeAsk, now: dt.datetime
    ) -> None:
        store.enqueue([make_ask(backfill_id="bf", covers_tables=True)], now=now)
        [job] = store.lease(1, parser="10.0.0.7", now=now + dt.timedelta(minutes=2))
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
        html = client.get(f"/job/{job.number}").text
        assert rows(html) == [
            "2024-03-02 10:30:00 queued 1",
            "2024-03-02 10:32:00 init 1 2 min 0 s queued",
        ]
        text = " ".join(re.sub(r"<[^>]*>", " ", html).split())
        assert "gs://archive-mlab-oti/ndt/ndt7/2024/03/01/: 3 when it was asked for" in text
        assert "run:a a bf with tables" in text
        assert "load tmp_ndt.ndt7 1,234 5.6 MB 2.5 s 1.5 gardener_load_1" in text

    @pytest.mark.parametrize("number", ["99", "99999999999999999999999"])
    def test_no_such_job(self, client: TestClient, number: str) -> None:
        response = client.get(f"/job/{number}")
        assert (response.status_code, response.text) == (404, f"there is no job number {number}")


def test_nothing_can_be_changed_here(client: TestClient) -> None:
    for path in ("/", "/status", "/job/1", "/v2/job/next", "/job", "/update"):
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert client.request(method, path).status_code in (404, 405)


def test_nothing_from_elsewhere_is_loaded(client: TestClient) -> None:
    response = client.get("/")
    assert response.headers["content-security-policy"].startswith("default-src 'none'")
    assert not re.search(r"<script|<link|src=|https?://", response.text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (11_520, "3 h 12 min"), (180_000, "2 d 2 h")],
)
def test_human_duration(seconds: int, text: str) -> None:
    assert human_duration(dt.timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e12, "2.5 TB")]
)
def test_human_bytes(size: int, text: str) -> None:
    assert human_bytes(size) == text
