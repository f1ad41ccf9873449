"""The commands, against a webserver that answers as Dagster's does. The real one: integration."""

import datetime as dt
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from job_requests import request_for

from gardener_api.config import GardenerConfig
from gardener_api.jobs.job import JobState
from gardener_api.store.store import JobStore
from gardener_dagster.cli.main import main
from gardener_dagster.planning.due_tables import job_key

NOW = dt.datetime(2024, 3, 2, 12, tzinfo=dt.UTC)
DAYS = [dt.date(2024, 3, day) for day in (1, 2)]


@dataclass
class Webserver:
    url: str = ""
    launched: list[dict[str, Any]] = field(default_factory=list)
    refusal: str = ""
    crash: str = ""  # an error that Dagster does not foresee: status 500, and GraphQL's errors
    statuses: list[str] = field(default_factory=lambda: ["COMPLETED_SUCCESS"])
    running: list[dict[str, Any]] = field(default_factory=list)  # backfills

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        if "launchPartitionBackfill" in query:
            self.launched.append(variables["params"])
            said = {"message": self.refusal} if self.refusal else {"backfillId": "abc"}
            return {"launchPartitionBackfill": said}
        if "partitionBackfillsOrError" in query:
            return {"partitionBackfillsOrError": {"results": self.running}}
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return {"partitionBackfillOrError": {"status": status}}


@pytest.fixture
def webserver() -> Iterator[Webserver]:
    dagster = Webserver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer: dict[str, Any] = {"data": dagster.answer(body["query"], body["variables"])}
            if dagster.crash:
                answer = {"data": None, "errors": [{"message": dagster.crash}]}
            data = json.dumps(answer).encode()
            self.send_response(500 if dagster.crash else 200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing is logged."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        dagster.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield dagster
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def jobs(store: JobStore, config: GardenerConfig) -> None:
    """ndt7 of two days: the first complete, with its rows; the second failed in its loading."""
    source = config.source("ndt/ndt7")
    for day in DAYS:
        request = request_for(job_key(source, day), requester="r", run_id="r", archives=0)
        store.enqueue([request], now=NOW)
        store.stage(request.key, JobState.LOADING, run_id="t", now=NOW)
    store.tables.record_partition(source.raw_table, DAYS[0], rows=1234, run_id="t", now=NOW)
    store.stage(job_key(source, DAYS[0]), JobState.COMPLETE, run_id="t", now=NOW)
    store.fail_stage(job_key(source, DAYS[1]), "no such field: x", run_id="t", now=NOW)


def gardener(tmp_path: Path, *arguments: str, url: str = "", store_url: str = "") -> Result:
    environment = {
        "GARDENER_CONFIG": str(tmp_path / "gardener.yml"),
        "GARDENER_DATABASE_URL": store_url or f"sqlite:///{tmp_path / 'gardener.db'}",
        "GARDENER_DAGSTER_URL": url,
    }
    return CliRunner().invoke(main, arguments, env=environment)


@pytest.mark.usefixtures("jobs")
def test_status_shows_state_attempt_rows_and_error(tmp_path: Path) -> None:
    result = gardener(
        tmp_path, "status", "--source", "ndt/ndt7", "--dates", "2024-03-01:2024-03-03"
    )
    assert result.exit_code == 0
    first, second, third = result.stdout.splitlines()
    assert first.split()[:5] == ["ndt/ndt7", "2024-03-01", "complete", "attempt", "1"]
    assert "1,234 rows raw" in first
    assert second.split()[2] == "failed"
    assert "no such field: x" in second
    assert third.endswith("never asked for")


@pytest.mark.usefixtures("jobs")
def test_status_is_of_all_sources_and_the_last_week_by_default(tmp_path: Path) -> None:
    assert len(gardener(tmp_path, "status").stdout.splitlines()) == 2 * 7


@pytest.mark.usefixtures("config")
def test_looking_makes_no_store(tmp_path: Path) -> None:
    result = gardener(tmp_path, "status")
    assert result.exit_code == 1
    assert "there is no job store" in result.output
    assert not (tmp_path / "gardener.db").exists()


@pytest.mark.usefixtures("store")
def test_an_unknown_source_is_named(tmp_path: Path) -> None:
    result = gardener(tmp_path, "status", "--source", "ndt/ndt9")
    assert result.exit_code == 1
    assert "no source 'ndt/ndt9'" in result.output


@pytest.mark.usefixtures("config")
def test_d23_a_range_is_a_backfill_of_what_is_parsed(tmp_path: Path, webserver: Webserver) -> None:
    result = gardener(
        tmp_path, "backfill", "--source", "ndt/ndt7", "--dates", "2024-03-01:2024-03-02",
        url=webserver.url,
    )  # fmt: skip
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "Will be made: 2024-03-01 to 2024-03-02 (2 dates) of",
        "  parsed/ndt/ndt7",
        f"backfill abc: {webserver.url}/runs/b/abc",
    ]
    assert webserver.launched == [
        {
            "assetSelection": [{"path": ["parsed", "ndt", "ndt7"]}],
            "partitionNames": ["2024-03-01", "2024-03-02"],
        }
    ]


@pytest.mark.usefixtures("config")
def test_tables_only_leaves_the_parse_out(tmp_path: Path, webserver: Webserver) -> None:
    gardener(
        tmp_path, "backfill", "--source", "ndt/ndt7", "--dates", "2024-03-01", "--tables-only",
        url=webserver.url,
    )  # fmt: skip
    [asked] = webserver.launched
    assert [key["path"] for key in asked["assetSelection"]] == [
        ["tmp_ndt", "ndt7"], ["raw_ndt", "ndt7"], ["ndt", "ndt7"],
    ]  # fmt: skip


@pytest.mark.usefixtures("jobs")
def test_waiting_tells_what_became_of_each_date(tmp_path: Path, webserver: Webserver) -> None:
    webserver.statuses = ["REQUESTED", "COMPLETED_SUCCESS"]
    one = gardener(
        tmp_path, "backfill", "--source", "ndt/ndt7", "--dates", "2024-03-01", "--wait",
        url=webserver.url,
    )  # fmt: skip
    assert one.exit_code == 0
    assert one.stdout.splitlines()[-1] == "backfill abc: COMPLETED_SUCCESS"
    both = gardener(
        tmp_path, "backfill", "--source", "ndt/ndt7", "--dates", "2024-03-01:2024-03-02", "--wait",
        url=webserver.url,
    )  # fmt: skip
    assert both.exit_code == 1
    assert "no such field: x" in both.stdout


@pytest.mark.usefixtures("config")
def test_without_a_store_to_wait_with_nothing_is_asked_for(
    tmp_path: Path, webserver: Webserver
) -> None:
    result = gardener(tmp_path, "backfill", "--dates", "2024-03-01", "--wait", url=webserver.url)
    assert result.exit_code == 1
    assert "there is no job store" in result.output
    assert webserver.launched == []


@pytest.mark.usefixtures("config")
def test_what_dagster_refuses_is_told_in_its_words(tmp_path: Path, webserver: Webserver) -> None:
    webserver.refusal = "Partition keys `['2024-03-01']` could not be found"
    result = gardener(tmp_path, "backfill", "--dates", "2024-03-01", url=webserver.url)
    assert result.exit_code == 1
    assert "Dagster refused: Partition keys `['2024-03-01']` could not be found" in result.output


@pytest.mark.usefixtures("config")
def test_d39_an_error_in_dagster_is_told_in_its_words(tmp_path: Path, webserver: Webserver) -> None:
    webserver.crash = "Expected at least one partition"
    result = gardener(tmp_path, "backfill", "--dates", "2024-03-01", url=webserver.url)
    assert result.exit_code == 1
    assert "Dagster refused: Expected at least one partition" in result.output
    assert "does not answer" not in result.output


@pytest.mark.usefixtures("config")
def test_d39_dates_outside_the_partitions_are_named_and_the_others_are_asked_for(
    tmp_path: Path, webserver: Webserver
) -> None:
    today = dt.datetime.now(dt.UTC).date()
    result = gardener(
        tmp_path, "backfill", "--source", "ndt/ndt7",
        "--dates", "2023-12-30:2024-01-02", "--dates", "2024-01-05", "--dates", str(today),
        url=webserver.url,
    )  # fmt: skip
    assert result.exit_code == 3
    assert result.stdout.splitlines()[:-1] == [
        "Will be made: 2024-01-01 to 2024-01-02, 2024-01-05 (3 dates) of",
        "  parsed/ndt/ndt7",
        "Left out: 2023-12-30 to 2023-12-31 (2 dates): before start_date 2024-01-01 of the"
        " configuration",
        f"Left out: {today} (1 date): not over yet; today is {today} (UTC), and a date can be made"
        " from the next day on",
    ]
    [asked] = webserver.launched
    assert asked["partitionNames"] == ["2024-01-01", "2024-01-02", "2024-01-05"]


@pytest.mark.usefixtures("config")
def test_d39_where_all_dates_are_left_out_nothing_is_asked_for(
    tmp_path: Path, webserver: Webserver
) -> None:
    result = gardener(tmp_path, "backfill", "--dates", "1999-01-01:1999-01-31", url=webserver.url)
    assert result.exit_code == 3
    assert "Left out: 1999-01-01 to 1999-01-31 (31 dates): before start_date" in result.output
    assert result.output.endswith("Nothing is asked for.\n")
    assert webserver.launched == []


@pytest.mark.usefixtures("jobs")
def test_d39_a_date_that_fails_is_worse_than_one_that_is_left_out(
    tmp_path: Path, webserver: Webserver
) -> None:
    def wait_for(dates: str) -> int:
        return gardener(
            tmp_path, "backfill", "--source", "ndt/ndt7", "--dates", "2023-12-31",
            "--dates", dates, "--wait", url=webserver.url,
        ).exit_code  # fmt: skip

    assert wait_for("2024-03-01") == 3
    assert wait_for("2024-03-02") == 1


def test_the_exit_codes_are_in_the_help() -> None:
    text = CliRunner().invoke(main, ["backfill", "--help"]).output
    assert "Exit codes:\n    0  all dates" in text
    assert "    3  dates were left out" in text


@pytest.mark.usefixtures("config")
def test_a_webserver_that_does_not_answer_is_named(tmp_path: Path) -> None:
    result = gardener(tmp_path, "backfill", "--dates", "2024-03-01", url="http://127.0.0.1:9")
    assert result.exit_code == 1
    assert "http://127.0.0.1:9 does not answer as Dagster's webserver" in result.output


@pytest.mark.usefixtures("config")
def test_without_a_store_it_says_that_the_cost_is_not_known(
    tmp_path: Path, webserver: Webserver
) -> None:
    result = gardener(tmp_path, "backfill", "--dates", "2024-03-01", url=webserver.url)
    assert result.exit_code == 0
    assert "What it will cost is not known: there is no job store" in result.stderr


@pytest.mark.usefixtures("jobs")
def test_a_plan_tells_the_cost_and_asks_for_nothing(tmp_path: Path, webserver: Webserver) -> None:
    result = gardener(
        tmp_path, "backfill", "--source", "ndt/ndt7", "--dates", "2024-03-01:2024-03-04", "--plan",
        url=webserver.url,
    )  # fmt: skip
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "Will be made: 2024-03-01 to 2024-03-04 (4 dates) of",
        "  parsed/ndt/ndt7",
        "Expected, from the last time that each date was made (2 of a neighbouring date):",
        "  jobs            4",
        "  archives        0",
        "  parser hours    0.0",
        "  rows            1,234",
        "  load            0 B in 0 s",
        "  queries         0 B processed, 0 B billed",
        "  slot hours      0.0",
        "  time to finish  not known: no parser has had a job in the last day",
    ]
    assert webserver.launched == []


@pytest.mark.usefixtures("jobs")
@pytest.mark.parametrize(
    ("options", "dates"),
    [
        (["--missing"], ["2024-03-02", "2024-03-03"]),
        (["--failed"], ["2024-03-02"]),
        (["--older-than", "2024-03-03"], ["2024-03-01"]),
        (["--older-than", "2024-03-02"], []),
        (["--older-than", "2024-03-03", "--failed"], ["2024-03-01", "2024-03-02"]),
    ],
    ids=" ".join,
)
def test_only_dates_that_are_selected_are_asked_for(
    tmp_path: Path, webserver: Webserver, options: list[str], dates: list[str]
) -> None:
    result = gardener(
        tmp_path, "backfill", "--source", "ndt/ndt7", "--dates", "2024-03-01:2024-03-03", *options,
        url=webserver.url,
    )  # fmt: skip
    assert result.exit_code == 0
    assert [asked["partitionNames"] for asked in webserver.launched] == ([dates] if dates else [])


@pytest.mark.usefixtures("jobs")
def test_sources_that_miss_different_dates_get_a_backfill_each(
    tmp_path: Path, webserver: Webserver
) -> None:
    result = gardener(
        tmp_path, "backfill", "--dates", "2024-03-01:2024-03-02", "--missing", url=webserver.url
    )
    assert result.exit_code == 0
    asked = [
        (["/".join(key["path"]) for key in each["assetSelection"]], each["partitionNames"])
        for each in webserver.launched
    ]
    assert asked == [
        (["parsed/ndt/annotation2"], ["2024-03-01", "2024-03-02"]),
        (["parsed/ndt/ndt7"], ["2024-03-02"]),
    ]
    assert "Skipped: 2024-03-01 (1 date) of ndt/ndt7: made already" in result.stdout


@pytest.mark.usefixtures("jobs")
def test_what_a_date_is_to_be_older_than_is_checked(tmp_path: Path) -> None:
    result = gardener(tmp_path, "backfill", "--dates", "2024-03-01", "--older-than", "yesterday")
    assert result.exit_code == 2
    assert "'yesterday': expected a version like v2.6.1, or a date like 2024-03-01" in result.output


@pytest.mark.usefixtures("jobs")
def test_what_an_unfinished_backfill_of_dagsters_makes_is_on_its_way(
    tmp_path: Path, webserver: Webserver
) -> None:
    webserver.running = [
        {
            "id": "before",
            "timestamp": (NOW + dt.timedelta(hours=1)).timestamp(),
            "partitionNames": ["2024-03-02", "2024-03-03"],
            "assetSelection": [{"path": ["parsed", "ndt", "ndt7"]}],
        }
    ]
    result = gardener(
        tmp_path, "backfill", "--source", "ndt/ndt7", "--dates", "2024-03-01:2024-03-04",
        "--missing", url=webserver.url,
    )  # fmt: skip
    assert result.exit_code == 0
    assert "Skipped: 2024-03-02 to 2024-03-03 (2 dates) of ndt/ndt7: on its way" in result.stdout
    assert [asked["partitionNames"] for asked in webserver.launched] == [["2024-03-04"]]
