import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from job_requests import make_key

from gardener_api.store.publishing.held import Decision, Finding
from gardener_api.store.store import JobStore
from gardener_dagster.cli.main import main

NOW = dt.datetime(2024, 3, 9, tzinfo=dt.UTC)
CONFIG = """
start_date: 2024-01-01
sources:
- {bucket: archive-mlab-oti, experiment: ndt, datatype: ndt7}
"""
ROWS = Finding(audit="rows_of_previous", description="7 rows, 10 before")
IDS = Finding(audit="ids_of_previous", description="6 of 10 ids")
Gardener = Callable[..., str]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    url = f"sqlite:///{tmp_path / 'gardener.db'}"
    opened = JobStore.open(url, lease=dt.timedelta(hours=1), max_attempts=3)
    for day in (1, 2):
        opened.held.record(
            make_key(dt.date(2024, 3, day)), "raw_ndt.ndt7", [ROWS, IDS],
            staged="load 1", job=None, run_id="r", now=NOW,
        )  # fmt: skip
    yield opened
    opened.close()


@pytest.fixture
def gardener(tmp_path: Path, store: JobStore) -> Gardener:
    """Runs the command; its output."""
    config = tmp_path / "gardener.yml"
    config.write_text(CONFIG)

    def run(*arguments: str, code: int = 0) -> str:
        environment = {
            "GARDENER_CONFIG": str(config),
            "GARDENER_DATABASE_URL": f"sqlite:///{tmp_path / 'gardener.db'}",
        }
        result = CliRunner().invoke(main, list(arguments), env=environment)
        assert result.exit_code == code, result.output
        return result.output

    return run


def test_accept(gardener: Gardener, store: JobStore) -> None:
    output = gardener(
        "accept", "--source", "ndt/ndt7", "--dates", "2024-03-01", "--by", "ada", "--reason", "yes"
    )
    assert output.splitlines() == [
        "ndt/ndt7 2024-03-01 raw_ndt.ndt7: accepted by ada",
        "  accepted: rows_of_previous: 7 rows, 10 before",
        "  accepted: ids_of_previous: 6 of 10 ids",
    ]
    [held] = store.held.decided()
    assert (held.decision, held.reason) == (Decision.ACCEPT, "yes")
    # Once more: there is nothing to decide.
    again = gardener("accept", "--source", "ndt/ndt7", "--dates", "2024-03-01", code=1)
    assert again == "No partition of these waits for a decision.\n"


def test_one_audit(gardener: Gardener, store: JobStore) -> None:
    options = ("--source", "ndt/ndt7", "--dates", "2024-03-01:2024-03-02")
    output = gardener("accept", *options, "--audit", "ids_of_previous")
    assert output.count("still holds: rows_of_previous") == 2
    assert {tuple(held.audits) for held in store.held.decided()} == {("ids_of_previous",)}


def test_an_audit_that_does_not_hold_them(gardener: Gardener, store: JobStore) -> None:
    options = ("--source", "ndt/ndt7", "--dates", "2024-03-01")
    output = gardener("accept", *options, "--audit", "annotated", code=1)
    assert "left alone, since it is held by rows_of_previous, ids_of_previous" in output
    assert "No partition" not in output
    unknown = gardener("accept", *options, "--audit", "rows", code=2)
    assert "'rows' is not one of 'unique_keys'" in unknown
    assert store.held.decided() == []


def test_reject(gardener: Gardener, store: JobStore) -> None:
    output = gardener("reject", "--source", "ndt/ndt7", "--dates", "2024-03-02")
    assert output.startswith("ndt/ndt7 2024-03-02 raw_ndt.ndt7: rejected by ")
    assert [held.decision for held in store.held.decided()] == [Decision.REJECT]
