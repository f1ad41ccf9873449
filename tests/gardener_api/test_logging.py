"""What is logged about jobs, and that nothing from outside makes a line of its own."""

import datetime as dt
import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gardener_api import logging as logs
from gardener_api.jobs.job import JobKey, JobRequest, JobState
from gardener_api.jobs.parser_calls import Error, Heartbeat, Next, Update
from gardener_api.store.store import JobStore

Wanted = Callable[..., JobRequest]
MakeKey = Callable[..., JobKey]
Lines = Callable[[], list[str]]

KEY = "archive-mlab-oti/ndt/ndt7/20240301"
EVIL = (
    'x\n2024-03-02T10:30:00.000Z ERROR   root "failed" job=1\r\x1b[2Jé\u2028\u0085\\" level=error'
)


@pytest.fixture
def logging_as() -> Iterator[Callable[[bool], Lines]]:
    """Logs as a sidecar would; gives what was logged since the last look."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level

    def configure(as_json: bool) -> Lines:
        stream = io.StringIO()
        logs.configure(as_json=as_json, stream=stream)

        def lines() -> list[str]:
            text = stream.getvalue()
            stream.seek(0)
            stream.truncate()
            assert text == "" or text.endswith("\n")
            return text.split("\n")[:-1]

        return lines

    yield configure
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def told(logging_as: Callable[[bool], Lines]) -> Callable[[], list[dict[str, Any]]]:
    """Logs in JSON; gives the lines without time and logger."""
    lines = logging_as(True)

    def read() -> list[dict[str, Any]]:
        return [
            {k: v for k, v in json.loads(line).items() if k not in ("time", "logger")}
            for line in lines()
        ]

    return read


def test_a_line_for_each_thing_that_happens_to_a_job(
    told: Callable[[], list[dict[str, Any]]],
    store: JobStore,
    wanted: Wanted,
    make_key: MakeKey,
    now: dt.datetime,
) -> None:
    told()
    store.enqueue([wanted()], now=now)
    assert told() == [{"level": "info", "event": "queued", "job": KEY}]
    second = dt.timedelta(seconds=1)
    [job] = store.lease(1, parser="10.0.0.7", now=now + second)
    assert told() == [
        {
            "level": "info", "event": "handed out", "job": KEY, "left": "queued", "seconds": 1.0,
            "parser": "10.0.0.7",
        }
    ]  # fmt: skip
    store.apply([Heartbeat(job.id), Update(job.id, "parsing", "a.tgz")], now=now + 2 * second)
    store.apply([Update(job.id, "parsing", "b.tgz")], now=now + 2 * second)
    [parsing] = told()
    assert (parsing["event"], parsing["detail"], parsing["job"]) == ("parsing", "a.tgz", KEY)
    store.apply([Error(job.id, "no disk")], now=now + 3 * second)
    failed, queued = told()
    assert (failed["level"], failed["event"], failed["detail"], failed["job"]) == (
        "warning", "attempt failed", "no disk", KEY,
    )  # fmt: skip
    assert (queued["event"], queued["job"]) == ("queued", f"{KEY}~1.2")
    store.apply([Heartbeat(job.id), Update("nothing", "parsing")], now=now)
    assert told() == [
        {"level": "info", "event": "refused a late call", "job": KEY},
        {"level": "info", "event": "refused a late call", "job": "nothing"},
    ]
    [job] = store.lease(1, parser="10.0.0.8", now=now)
    store.apply([Update(job.id, "complete")], now=now)
    assert told()[1] == {
        "level": "info", "event": "refused a state", "job": f"{KEY}~1.2", "state": "complete",
        "reason": "expected parsing or postProcessing",
    }  # fmt: skip
    store.expire(now=now + dt.timedelta(hours=6))
    expired, _ = told()
    assert (expired["level"], expired["event"], expired["job"]) == (
        "warning", "lease expired", f"{KEY}~1.2",
    )  # fmt: skip
    assert "parser 10.0.0.8 was silent" in expired["detail"]
    [job] = store.lease(1, now=now)
    store.apply([Update(job.id, "postProcessing"), Next()], now=now)
    told()
    store.stage(make_key(), JobState.LOADING, run_id="r1", now=now)
    store.fail_stage(make_key(), "No such field: x", run_id="r1", now=now)
    loading, failed = told()
    assert (loading["event"], loading["run"], loading["job"]) == ("loading", "r1", f"{KEY}~1.3")
    assert (failed["level"], failed["event"], failed["detail"], failed["left"]) == (
        "error", "failed", "No such field: x", "loading",
    )  # fmt: skip


def test_a_withdrawn_job(
    told: Callable[[], list[dict[str, Any]]], store: JobStore, wanted: Wanted, now: dt.datetime
) -> None:
    store.enqueue([wanted()], now=now)
    told()
    store.withdraw("a", by="x", now=now)
    [withdrawn] = told()
    assert (withdrawn["event"], withdrawn["job"]) == ("withdrawn", KEY)


def test_what_was_rolled_back_is_not_told(
    told: Callable[[], list[dict[str, Any]]],
    store: JobStore,
    wanted: Wanted,
    now: dt.datetime,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store.enqueue([wanted()], now=now)
    told()

    def fail(*_: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr("gardener_api.store.store.save_jobs", fail)
    with pytest.raises(RuntimeError):
        store.lease(1, now=now)
    assert told() == []


@pytest.mark.parametrize("as_json", [True, False])
def test_no_detail_makes_a_line(
    logging_as: Callable[[bool], Lines],
    store: JobStore,
    wanted: Wanted,
    now: dt.datetime,
    as_json: bool,
) -> None:
    store.enqueue([wanted()], now=now)
    [job] = store.lease(1, parser=EVIL, now=now)
    lines = logging_as(as_json)
    store.apply([Update(job.id, "parsing", EVIL), Heartbeat(EVIL), Error(job.id, EVIL)], now=now)
    told = lines()
    assert len(told) == 4
    for line in told:
        assert line.isprintable()
        assert len(line.splitlines()) == 1
        if as_json:
            assert json.loads(line)["level"] in ("info", "warning")
        else:
            assert " ERROR " not in line.partition(" gardener_api.store.job_log ")[0]
    if as_json:
        assert json.loads(told[0])["detail"] == EVIL


def test_text(logging_as: Callable[[bool], Lines]) -> None:
    lines = logging_as(False)
    extra = {"job": KEY, "detail": 'say "yes"', "nothing": "", "path": "C:\\"}
    logging.getLogger("a.b").warning("it\nhappened", extra=extra)
    [line] = lines()
    time, _, rest = line.partition(" ")
    assert dt.datetime.fromisoformat(time).tzinfo == dt.UTC
    assert rest == (
        f'WARNING a.b it\\nhappened job={KEY} detail="say \\"yes\\"" nothing="" path=C:\\\\'
    )


def test_a_traceback_begins_no_line_like_another(logging_as: Callable[[bool], Lines]) -> None:
    for as_json in (True, False):
        lines = logging_as(as_json)
        try:
            raise ValueError(f"in {EVIL}")
        except ValueError:
            logging.getLogger("a").exception("it broke")
        first, *rest = lines()
        if as_json:
            assert rest == []
            assert "ValueError: in x" in json.loads(first)["exception"]
        else:
            assert first.endswith(" ERROR   a it broke")
            assert all(line.startswith("    | ") for line in rest)
            assert any("ValueError: in x" in line for line in rest)
