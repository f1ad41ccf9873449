import datetime as dt
from collections.abc import Callable

from page_text import text_of
from starlette.testclient import TestClient

from gardener_api.jobs.job import JobKey, JobRequest
from gardener_api.store.publishing.changes import PartitionChange
from gardener_api.store.publishing.held import Decision, Finding, Outcome
from gardener_api.store.store import JobStore

Wanted = Callable[..., JobRequest]
MakeKey = Callable[..., JobKey]
EVIL = "<script>alert('x')</script> & \"quotes\"; DROP TABLE jobs; --"


class TestHeld:
    def test_it_is_listed_until_it_is_settled(
        self, client: TestClient, store: JobStore, make_key: MakeKey, now: dt.datetime
    ) -> None:
        key, table = make_key(1), "raw_ndt.ndt7"
        assert "Waiting for a decision" not in client.get("/").text
        finding = Finding(
            audit="rows_of_previous", description=f"7 rows, 10 before {EVIL}", numbers={"rows": 7}
        )
        number = store.held.record(
            key, table, [finding], staged="load 2", job=None, run_id="r", now=now
        )
        html = client.get("/").text
        assert "<script>" not in html
        assert "Waiting for a decision: 1" in html
        assert "7 rows, 10 before" in text_of(html)
        assert "gardener accept --source ndt/ndt7 --dates 2024-03-01" in text_of(html)
        [held] = client.get("/api/held").json()["held"]
        assert (held["source"], held["date"], held["number"]) == ("ndt/ndt7", "2024-03-01", number)
        assert held["findings"][0]["numbers"] == {"rows": 7}
        store.held.decide(number, Decision.REJECT, by=EVIL, now=now)
        html = client.get("/").text
        assert "<script>" not in html
        assert "rejected by" in text_of(html)
        store.held.settle(table, key.date, Outcome.REJECTED, now=now)
        assert "Waiting for a decision" not in client.get("/").text
        assert client.get("/api/held").json() == {"held": []}

    def test_the_jobs_page_has_decisions_and_what_changed(
        self,
        client: TestClient,
        store: JobStore,
        wanted: Wanted,
        make_key: MakeKey,
        now: dt.datetime,
    ) -> None:
        [job] = store.enqueue([wanted(1)], now=now)
        key, table = make_key(1), f"{job.raw}.ndt7"
        finding = Finding(audit="unique_keys", description="3 share")
        number = store.held.record(
            key, table, [finding], staged="load 2", job=job.number, run_id="r", now=now
        )
        store.held.decide(number, Decision.ACCEPT, by="ada", reason="a box died", now=now)
        store.changes.record(
            PartitionChange(
                table=table, date=key.date, version=2, run_id="r", made=now, rows=7,
                rows_before=10, ids_added=1, ids_removed=4, ids_kept=6, parser_versions=("v3",),
            )
        )  # fmt: skip
        text = text_of(client.get(f"/job/{job.number}").text)
        assert "accepted by ada 2024-03-02 10:30:00 : a box died" in text
        assert f"{table} 2 7 10 1 4 6 – – v3 r" in text
        values = client.get(f"/api/jobs/{job.number}").json()
        assert [each["decision"] for each in values["held"]] == ["accept"]
        assert [each["ids_kept"] for each in values["changes"]] == [6]
