"""A backup that is taken under load and restored elsewhere has all that was answered before it."""

import contextlib
import datetime as dt
import os
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import requests
from job_requests import wanted
from postgres import empty_database
from sidecar_process import SidecarProcess
from sqlalchemy import make_url
from waiting import until

from gardener_api.client import JobsClient
from gardener_api.jobs.job import JobState
from gardener_api.store.store import JobStore

PARSERS = 8
JOBS = 2_000
FIRST_DATE = dt.date(1990, 1, 1)
UPDATES = 100  # that are answered before the backup begins
Answered = dict[str, int]
"""By job the last update that was answered: each update's detail is one more."""


def opened(url: str) -> JobStore:
    return JobStore.open(url, lease=dt.timedelta(hours=5), max_attempts=3)


class Load:
    """Parsers that take jobs and report on them until they are told to stop."""

    def __init__(self, url: str) -> None:
        self.answered: Answered = {}
        self._url, self._stop = url, threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(PARSERS)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def updates(self) -> int:
        """How many were answered."""
        return sum(dict(self.answered).values())

    def _work(self) -> None:
        with JobsClient(self._url) as client:
            while not self._stop.is_set():
                job = client.next()
                if job is None:
                    return
                self.answered[job.id] = 0
                for number in range(1, 11):
                    client.update(job.id, JobState.PARSING, str(number))
                    self.answered[job.id] = number
                    if self._stop.is_set():
                        return


@pytest.fixture
def restored(database: str, store_url: str, tmp_path: Path) -> Iterator[Callable[[], str]]:
    """Takes a backup and restores it elsewhere; the URL of the restored store."""
    if database == "sqlite":
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()

        def copy() -> str:
            path = make_url(store_url).database
            assert path
            with (
                closing(sqlite3.connect(path)) as source,
                closing(sqlite3.connect(elsewhere / "gardener.db")) as target,
            ):
                source.backup(target)  # what `.backup` of the command line does
            return f"sqlite:///{elsewhere / 'gardener.db'}"

        yield copy
        return
    with empty_database(store_url) as target:

        def dump_and_restore() -> str:
            file = str(tmp_path / "backup")
            run_program("pg_dump", "--format=custom", f"--file={file}", store_url)
            run_program("pg_restore", "--no-owner", "--exit-on-error", f"--dbname={target}", file)
            return target

        yield dump_and_restore


def run_program(name: str, *arguments: str) -> None:
    programs = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    program = str(programs[-1]) if programs else shutil.which(name)
    assert program, f"{name} is part of PostgreSQL"
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, env=os.environ, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_backup_under_load_has_what_was_answered_before(
    sidecar: SidecarProcess,
    restored: Callable[[], str],
    database: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with closing(opened(sidecar.url)) as store:
        asks = [wanted(FIRST_DATE + dt.timedelta(days=i)) for i in range(JOBS)]
        store.enqueue(asks, now=dt.datetime.now(dt.UTC))
    with Load(sidecar.jobs) as load:
        until(lambda: load.updates >= UPDATES, "there is no load")
        before = dict(load.answered)
        url = restored()
        during = load.updates - sum(before.values())
    assert before, "there was no load"
    with closing(opened(url)) as store:
        jobs = {job.id: job for job in store.jobs(limit=JOBS)}
        now = dt.datetime.now(dt.UTC)
    assert len(jobs) == JOBS
    lost = [i for i, number in before.items() if int(jobs[i].detail or 0) < number]
    with capsys.disabled():
        print(
            f"\n{database}: {sum(before.values())} updates of {len(before)} jobs were answered"
            f" before the backup, {during} while it was taken; {len(lost)} lost"
        )
    assert lost == []
    assert all(job.lease_expires is None or job.lease_expires > now for job in jobs.values())
    works(url, tmp_path)


def works(url: str, folder: Path) -> None:
    """A sidecar runs on the restored store, and a parser that held a job goes on."""
    second = SidecarProcess(url, folder / "second")
    with contextlib.closing(second):
        second.start()
        until(lambda: requests.get(f"{second.jobs}/ready", timeout=5).ok, "it is not ready")
        with closing(opened(url)) as store, JobsClient(second.jobs) as parser:
            held = store.jobs(limit=1, states=[JobState.PARSING])[0]
            parser.heartbeat(held.id)
            assert parser.next() is not None
