import datetime as dt
from collections.abc import Callable

import pytest
from page_text import LATER, rows
from starlette.testclient import TestClient

from gardener_api.jobs.job import JobKey, JobRequest, JobState
from gardener_api.jobs.parser_calls import Error, Update
from gardener_api.status.filters import PAGE
from gardener_api.store.store import JobStore

Wanted = Callable[..., JobRequest]
MakeKey = Callable[..., JobKey]
EVIL = "<script>alert('x')</script> & \"quotes\"; DROP TABLE jobs; --"


class TestList:
    def test_empty(self, client: TestClient) -> None:
        assert "No jobs yet" in client.get("/jobs").text
        assert "No jobs that match" in client.get("/jobs?experiment=wehe").text
        assert "There are no more jobs" in client.get("/jobs?page=3").text

    def test_a_job_with_state_detail_error_and_duration(
        self, client: TestClient, store: JobStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        store.enqueue([wanted()], now=now)
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
        wanted: Wanted,
        make_key: MakeKey,
        now: dt.datetime,
    ) -> None:
        store.enqueue([wanted(archives=0)], now=now)
        store.stage(make_key(), JobState.LOADING, run_id="t", now=now)
        store.fail_stage(make_key(), "No such field: x", run_id="t", now=now)
        [row] = rows(client.get("/jobs").text)
        assert "failed in loading 2024-03-02 10:30:00" in row
        assert "No such field: x" in row

    def test_filters(
        self, client: TestClient, store: JobStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        store.enqueue([wanted(1), wanted(2)], now=now)
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
        self, client: TestClient, store: JobStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        store.enqueue([wanted(day) for day in range(1, PAGE + 6)], now=now)
        first, second = client.get("/jobs?state=queued"), client.get("/jobs?state=queued&page=1")
        assert (len(rows(first.text)), len(rows(second.text))) == (PAGE, 5)
        assert 'rel="next" href="/jobs?state=queued&amp;page=1"' in first.text
        assert 'rel="prev"' not in first.text
        assert 'rel="next"' not in second.text
        assert 'rel="prev" href="/jobs?state=queued"' in second.text
        assert "101–105" in second.text

    def test_sorting(
        self, client: TestClient, store: JobStore, wanted: Wanted, now: dt.datetime
    ) -> None:
        store.enqueue([wanted(day) for day in (2, 1, 3)], now=now)
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
