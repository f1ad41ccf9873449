"""``gardener migrate`` and ``gardener import-state``, on both databases."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner
from old_gardener import LIFE, history, write_saved_state
from postgres import empty_database, postgresql
from sidecar_process import SidecarProcess

from gardener_api.client import JobGone, JobsClient
from gardener_api.jobs.job import Job, JobKey, JobState
from gardener_api.store.schema import NEWEST, StoreError
from gardener_api.store.store import JobStore
from gardener_dagster.cli.main import main

CONFIG = """\
start_date: 2024-03-01
sources:
- {bucket: archive-mlab-oti, experiment: ndt, datatype: ndt7}
"""
KEYS = [f"archive-mlab-oti/ndt/ndt7/202403{day:02}" for day in range(1, 13)]
EVERY_STATE = {
    **{key: history(*LIFE[: i + 1]) for i, key in enumerate(KEYS[:9])},
    KEYS[9]: history("init", "parsing", "parseError", detail="no space left"),
    KEYS[10]: history("init", "parsing", "failed", detail="Timeout"),
    KEYS[11]: history(*LIFE[:4], "failed", detail="No such field: raw.x"),
}
Gardener = Callable[..., str]


@pytest.fixture(scope="module")
def postgresql_url() -> Iterator[str]:
    with postgresql("fsync=off") as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'gardener.db'}"
        return
    with empty_database(request.getfixturevalue("postgresql_url")) as url:
        yield url


@pytest.fixture
def gardener(store_url: str, tmp_path: Path) -> Gardener:
    """Runs a command on the store; its output."""
    config = tmp_path / "gardener.yml"
    config.write_text(CONFIG)
    environment = {"GARDENER_DATABASE_URL": store_url, "GARDENER_CONFIG": str(config)}

    def run(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(main, arguments, env=environment)
        assert result.exit_code == code, result.output
        return result.output

    return run


def open_store(url: str, **options: bool) -> JobStore:
    return JobStore.open(url, lease=timedelta(hours=5), max_attempts=3, **options)


def jobs_of(url: str) -> dict[str, Job]:
    store = open_store(url)
    keys = (JobKey.parse(key) for key in KEYS)
    found = {str(key): store.latest(key) for key in keys}
    store.close()
    return {key: job for key, job in found.items() if job}


def test_migrate_makes_a_store_once(store_url: str, gardener: Gardener) -> None:
    assert gardener("migrate").endswith(f": made; it is of version {NEWEST} now\n")
    assert gardener("migrate").endswith(f": version {NEWEST} already; nothing was changed\n")


def test_a_process_that_may_not_migrate_refuses(store_url: str, gardener: Gardener) -> None:
    expected = rf"expected version {NEWEST}\. What to do: run `gardener migrate`"
    with pytest.raises(StoreError, match=f"there is none in .*{expected}"):
        open_store(store_url, may_migrate=False)
    gardener("migrate")
    open_store(store_url, may_migrate=False).close()


def test_a_sidecar_of_production_refuses(
    store_url: str, gardener: Gardener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GARDENER_MIGRATE", "never")
    sidecar = SidecarProcess(store_url, tmp_path / "sidecar")
    sidecar.launch()
    assert sidecar.popen.wait(60) == 1
    assert "run `gardener migrate` once (GARDENER_MIGRATE is 'never'" in sidecar.log
    gardener("migrate")
    sidecar.start()
    assert requests.get(f"{sidecar.jobs}/ready", timeout=10).status_code == 200
    sidecar.close()


def test_a_bad_setting(gardener: Gardener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GARDENER_MIGRATE", "no")
    assert "GARDENER_MIGRATE: 'no': expected one of at-start, never" in gardener("api", code=1)


def test_jobs_in_every_state_arrive_beside_a_running_parser(
    store_url: str, gardener: Gardener, tmp_path: Path
) -> None:
    file = str(write_saved_state(tmp_path / "state.json", EVERY_STATE))
    gardener("migrate")
    sidecar = SidecarProcess(store_url, tmp_path / "sidecar")
    sidecar.start()
    parser = JobsClient(sidecar.jobs)
    held = KEYS[1]
    with pytest.raises(JobGone):  # not imported yet
        parser.update(held, "parsing", "a.tgz")

    output = gardener("import-state", file, "--dry-run")
    assert "12 jobs would be imported, 0 were in the store already" in output
    assert jobs_of(store_url) == {}
    output = gardener("import-state", file)
    assert "12 jobs imported, 0 were in the store already" in output
    assert f"{KEYS[10]}: failed -> failed in parsing: Timeout\n" in output
    assert f"{KEYS[11]}: failed -> failed in loading: No such field: raw.x\n" in output
    assert f"{KEYS[9]}: parseError -> queued, attempt 2: no space left\n" in output
    assert f"{KEYS[6]}: deleting -> postProcessing\n" in output

    jobs = jobs_of(store_url)
    assert [jobs[key].state for key in KEYS] == [
        JobState.INIT,
        JobState.PARSING,
        *[JobState.POST_PROCESSING] * 6,
        JobState.COMPLETE,
        JobState.QUEUED,
        JobState.FAILED,
        JobState.FAILED,
    ]
    # The parser that held a job goes on; so does the one that had just been handed its job.
    parser.update(held, "parsing", "b.tgz")
    parser.update(held, "postProcessing", "")
    parser.heartbeat(KEYS[0])
    again = parser.next()
    assert again is not None
    assert again.id == f"{KEYS[9]}~1.2", "what was given up is the next attempt"
    assert parser.next() is None
    store = open_store(store_url)
    due = {
        str(item.job.key)
        for item in store.parsed_jobs(first=datetime(2024, 3, 1, tzinfo=UTC).date(), limit=100)
    }
    assert due == set(KEYS[1:8]), "these get their tables"
    store.close()

    output = gardener("import-state", file)
    assert "0 jobs imported, 12 were in the store already" in output
    sidecar.close()


@pytest.mark.parametrize(
    ("jobs", "fault"),
    [
        ({KEYS[0]: history("init", "stabilizing")}, "'stabilizing': expected one of init, parsing"),
        ({"archive-mlab-oti/ndt/web100/20240301": history("init")}, "is no source of the config"),
        (None, "is not JSON, or is cut off"),
    ],
)
def test_what_cannot_be_imported_changes_nothing(
    store_url: str,
    gardener: Gardener,
    tmp_path: Path,
    jobs: dict[str, list[dict[str, str]]] | None,
    fault: str,
) -> None:
    gardener("migrate")
    file = write_saved_state(tmp_path / "state.json", {**EVERY_STATE, **(jobs or {})})
    if jobs is None:
        file.write_text(file.read_text()[:-100])
    output = gardener("import-state", str(file), code=1)
    assert fault in output
    assert jobs_of(store_url) == {}


def test_an_import_needs_a_store(gardener: Gardener, store_url: str, tmp_path: Path) -> None:
    file = write_saved_state(tmp_path / "state.json", EVERY_STATE)
    output = gardener("import-state", str(file), code=1)
    assert "there is no job store" in output or "run `gardener migrate`" in output
