import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from old_gardener import BEGUN, LIFE, history, saved_state, write_saved_state

from gardener_api.config import GardenerConfig
from gardener_api.jobs.job import JobState, Priority
from gardener_api.jobs.saved_state import SavedJob, SavedStateError, read_saved_state

KEY = "archive-mlab-oti/ndt/ndt7/20240301"
LEASE = dt.timedelta(hours=5)
NOW = BEGUN + dt.timedelta(hours=3)
TEN_MINUTES = dt.timedelta(minutes=10)
Read = Callable[[Path], list[SavedJob]]


@pytest.fixture
def read(config: GardenerConfig) -> Read:
    return lambda path: read_saved_state(path, config, lease=LEASE, now=NOW)


def faults_of(read: Read, path: Path) -> list[str]:
    with pytest.raises(SavedStateError) as caught:
        read(path)
    return caught.value.faults


@pytest.mark.parametrize("state", LIFE[2:-1])
def test_what_was_parsed_is_to_get_its_tables(read: Read, tmp_path: Path, state: str) -> None:
    entries = history(*LIFE[: LIFE.index(state) + 1])
    [found] = read(write_saved_state(tmp_path / "state.json", {KEY: entries}))
    assert found.job.state is JobState.POST_PROCESSING
    assert found.job.parsed == BEGUN + 2 * TEN_MINUTES
    assert found.job.leased == BEGUN, "objects of before are not of this parse"
    assert found.job.lease_expires is None
    assert [event.state for event in found.history][:3] == list(LIFE[:3])
    assert found.history[-1].state == JobState.POST_PROCESSING


@pytest.mark.parametrize("state", ["init", "parsing"])
def test_what_a_parser_holds_stays_with_it(read: Read, tmp_path: Path, state: str) -> None:
    entries = history(*LIFE[: LIFE.index(state) + 1], detail="x.tgz")
    [found] = read(write_saved_state(tmp_path / "state.json", {KEY: entries}))
    assert found.job.id == KEY
    assert found.job.state == state
    assert found.job.detail == "x.tgz"
    assert found.job.lease_expires == NOW + LEASE, "a whole lease from now on"


def test_what_had_ended(read: Read, tmp_path: Path) -> None:
    loaded, parsed, done = (KEY[:-1] + day for day in "123")
    path = write_saved_state(
        tmp_path / "state.json",
        {
            loaded: history(*LIFE[:4], "failed", detail="No such field: raw.x"),
            parsed: history("init", "failed", detail="gone"),
            done: history(*LIFE),
        },
    )
    jobs = {str(item.job.key): item.job for item in read(path)}
    assert (jobs[loaded].state, jobs[loaded].failed_in) == (JobState.FAILED, JobState.LOADING)
    assert jobs[loaded].error == "No such field: raw.x"
    assert jobs[loaded].parsed == BEGUN + 2 * TEN_MINUTES
    assert (jobs[parsed].failed_in, jobs[parsed].parsed) == (JobState.INIT, None)
    assert jobs[done].state is JobState.COMPLETE
    assert jobs[done].ended == BEGUN + 8 * TEN_MINUTES


def test_a_parse_that_was_given_up(read: Read, tmp_path: Path) -> None:
    entries = history("init", "parsing", "parseError", detail="no space")
    [found] = read(write_saved_state(tmp_path / "state.json", {KEY: entries}))
    assert (found.saved, found.parse_error) == ("parseError", "no space")


def test_a_job_of_the_day_before_was_a_daily_one(read: Read, tmp_path: Path) -> None:
    keys = [KEY, KEY[:-4] + "0101"]
    path = write_saved_state(tmp_path / "state.json", dict.fromkeys(keys, history("init")))
    old, new = (item.job for item in read(path))
    assert (new.daily, new.priority) == (True, Priority.DAILY)
    assert (old.daily, old.priority) == (False, Priority.HISTORICAL)


def test_times_are_utc_whatever_the_files_zone(read: Read, tmp_path: Path) -> None:
    entry = {"State": "init", "Start": "2024-03-02T07:00:00.577268-04:00", "Detail": ""}
    entry["DetailTime"] = entry["Start"]
    [found] = read(write_saved_state(tmp_path / "state.json", {KEY: [entry]}))
    assert found.job.created == BEGUN + dt.timedelta(microseconds=577268)
    assert found.job.created.tzinfo is dt.UTC


def test_a_truncated_file(read: Read, tmp_path: Path) -> None:
    path = write_saved_state(tmp_path / "state.json", {KEY: history("init")})
    whole = path.read_text()
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_text(whole[:length])
        [fault] = faults_of(read, path)
        assert fault.startswith("is not JSON, or is cut off: ")


def test_an_unknown_state(read: Read, tmp_path: Path) -> None:
    path = write_saved_state(tmp_path / "state.json", {KEY: history("init", "stabilizing")})
    [fault] = faults_of(read, path)
    assert fault.startswith(
        f"Statuses.{KEY}.History[1].State: 'stabilizing': expected one of init, parsing"
    )


@pytest.mark.parametrize(
    "key", ["archive-mlab-oti/ndt/ndt5/20240301", "another-bucket/ndt/ndt7/20240301"]
)
def test_an_unknown_source(read: Read, tmp_path: Path, key: str) -> None:
    path = write_saved_state(tmp_path / "state.json", {key: history("init"), KEY: history("init")})
    [fault] = faults_of(read, path)
    assert fault == (
        f"Jobs.{key}: {key[:-9]!r} is no source of the configuration: expected one of"
        " archive-mlab-oti/ndt/annotation2, archive-mlab-oti/ndt/ndt7"
    )


def test_a_file_that_does_not_fit_together(read: Read, tmp_path: Path) -> None:
    other = KEY[:-1] + "2"
    state = saved_state({KEY: history("init"), other: history("init")})
    del state["Jobs"][KEY]
    state["Jobs"][other]["Datatype"] = "annotation2"
    path = tmp_path / "state.json"
    path.write_text(json.dumps(state))
    assert faults_of(read, path) == [
        f"Statuses.{KEY}: expected the same key in Jobs",
        f"Jobs.{other}: 'archive-mlab-oti/ndt/annotation2/20240302':"
        " expected the values of its own key",
    ]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ({"SaveTime": "2024-03-02T12:00:00Z", "Jobs": {}}, "Statuses: missing: expected it"),
        ({"SaveTime": "x", "Statuses": {}, "Jobs": {}}, "SaveTime: 'x': expected a valid datetime"),
        ([], "expected"),
    ],
)
def test_what_is_no_saved_state(read: Read, tmp_path: Path, content: Any, fault: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(json.dumps(content))
    [found] = faults_of(read, path)
    assert fault in found


def test_no_file(read: Read, tmp_path: Path) -> None:
    assert faults_of(read, tmp_path / "none.json") == ["cannot be read: No such file or directory"]
