"""Parsers that are lost, as real processes: each day is complete in the end, each row once."""

import datetime as dt
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from gate import Gate, gate
from job_requests import request_for
from stack_client import StackClient
from waiting import until

from gardener_api.jobs.job import LEASE_EXPIRED, Job, JobKey, JobState
from gardener_dagster.local.demo.upload import upload_archives
from gardener_dagster.local.samples.archives import make_samples
from gardener_dagster.local.stack.processes import Part, Processes
from gardener_dagster.planning.due_tables import job_key

AFTER_NEXT, IN_THE_MIDDLE, COMES_BACK = (dt.date(2024, 6, day) for day in (1, 3, 5))
DATES = (AFTER_NEXT, IN_THE_MIDDLE, COMES_BACK)


def ask(stack: StackClient, source_name: str, date: dt.date) -> JobKey:
    source = stack.config.source(source_name)
    key = job_key(source, date)
    request = request_for(
        key,
        requester="test",
        run_id="test",
        tmp=source.target_datasets.tmp,
        raw=source.target_datasets.raw,
        join=source.target_datasets.join,
        archives=stack.expected[source_name.removeprefix("ndt/"), date].archives,
    )
    stack.store.enqueue([request], now=dt.datetime.now(dt.UTC))
    return key


def job(stack: StackClient, key: JobKey) -> Job:
    found = stack.store.latest(key)
    assert found is not None
    return found


def parser(stack: StackClient, number: int, storage: Gate) -> Part:
    environment = stack.settings.environment | {"STORAGE_EMULATOR_HOST": storage.url}
    return Part(
        name=f"parser {number}",
        command=[
            sys.executable, "-m", "gardener_dagster.cli.main", "worker",
            "--api", stack.settings.jobs_url, "--poll", "0.1",
        ],
        environment=environment,
        log=stack.settings.home / "logs" / f"parser-{number}.log",
    )  # fmt: skip


@pytest.fixture(scope="module")
def lost(stack: StackClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Part]:
    """Three dates that three parsers were lost with; complete. Yields the one that comes back."""
    folder: Path = tmp_path_factory.mktemp("archives")
    stack.expected.update(make_samples(folder, DATES))
    upload_archives(folder, stack.settings.storage_url, stack.config, DATES)
    for date in DATES:
        ask(stack, "ndt/annotation2", date)
    annotations = [job_key(stack.config.source("ndt/annotation2"), date) for date in DATES]
    until(lambda: all(job(stack, k).parsed for k in annotations), "annotations were not parsed")
    good = stack.processes.part("worker")
    with ExitStack() as cleanup:
        cleanup.callback(good.signal, signal.SIGCONT)
        good.signal(signal.SIGSTOP)
        # The first is held when it lists, the others when they read an archive.
        gates = [
            cleanup.enter_context(gate(stack.settings.storage_url, hold=hold))
            for hold in ("/o?", "/download/", "/download/")
        ]
        parsers = [parser(stack, n, g) for n, g in enumerate(gates)]
        processes = cleanup.enter_context(Processes(parsers))
        processes.start()
        for part in parsers:
            until(lambda p=part: any("asking" in line for line in p.last_lines()), "no parser")  # type: ignore[misc]
            part.signal(signal.SIGSTOP)
        keys = []
        states = (JobState.INIT, JobState.PARSING, JobState.PARSING)
        for part, date, state in zip(parsers, DATES, states, strict=True):
            keys.append(ask(stack, "ndt/ndt7", date))
            part.signal(signal.SIGCONT)
            until(lambda k=keys[-1], s=state: job(stack, k).state is s, f"{date} not {state}")  # type: ignore[misc]
        for part in parsers[:2]:
            part.signal(signal.SIGKILL)
        good.signal(signal.SIGCONT)
        until(
            lambda: all(job(stack, k).state is JobState.COMPLETE for k in keys),
            "not all dates were completed",
        )
        gates[2].open()
        until(
            lambda: any("no longer ours" in line for line in parsers[2].last_lines()),
            "the one that came back was not told",
        )
        yield parsers[2]


@pytest.mark.usefixtures("lost")
@pytest.mark.parametrize("date", DATES, ids=["after next", "in the middle", "comes back"])
def test_the_day_is_complete_and_each_row_is_there_once(stack: StackClient, date: dt.date) -> None:
    want = stack.expected["ndt7", date]
    assert stack.value("raw_ndt.ndt7", date) == want.raw_rows
    assert stack.value("raw_ndt.ndt7", date, "COUNT(DISTINCT id)") == want.raw_rows
    assert stack.value("ndt.ndt7", date) == want.joined_rows


@pytest.mark.usefixtures("lost")
@pytest.mark.parametrize("date", DATES, ids=["after next", "in the middle", "comes back"])
def test_d01_the_lost_attempt_is_told_and_counted(stack: StackClient, date: dt.date) -> None:
    found = job(stack, job_key(stack.config.source("ndt/ndt7"), date))
    assert found.attempt == 2
    states = [event.state for event in stack.store.events(found.number)]
    assert states.count(LEASE_EXPIRED) == 1
    assert states[-1] == JobState.COMPLETE


def test_a_late_parser_changes_nothing(stack: StackClient, lost: Part) -> None:
    found = job(stack, job_key(stack.config.source("ndt/ndt7"), COMES_BACK))
    assert found.state is JobState.COMPLETE
    loads = [o for o in stack.store.tables.operations(found.key) if o.operation == "load"]
    assert len(loads) == 1
    assert lost.exit_code is None  # it goes on asking for jobs
