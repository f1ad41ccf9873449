"""Two sidecars on one PostgreSQL, each replaced under load as a Kubernetes Deployment does it.

The parsers are Go clients, which repeat no POST by themselves: a call that fails is a call that is
lost. ``GARDENER_CONNECTIONS`` is over how many connections they call, ``update`` and ``next`` each.
"""

import datetime as dt
import json
import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
from go_client import Answers, Group, build, results
from job_requests import wanted
from postgres import postgresql
from service_proxy import Service, service
from sidecar_process import SidecarProcess
from sqlalchemy import func, select
from waiting import until

from gardener_api.jobs.job import JobState
from gardener_api.store import schema
from gardener_api.store.engine import open_engine
from gardener_api.store.store import JobStore

CONNECTIONS = int(os.environ.get("GARDENER_CONNECTIONS", "64"))
NEXTS = 6_000
FIRST_DATE = dt.date(1980, 1, 1)
# A Service stops sending new connections to an endpoint some time before it is told to end:
# `preStop` in deploy/kubernetes/sidecar.yaml.
OUT_OF_SERVICE_SECONDS = 0.5
UPDATED = "file"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with postgresql("max_connections=200") as server:
        yield server


@pytest.fixture
def sidecars(url: str, tmp_path: Path) -> Iterator[list[SidecarProcess]]:
    """Two old ones and two new ones, all running."""
    made = [SidecarProcess(url, tmp_path / f"sidecar-{i}") for i in range(4)]
    try:
        for sidecar in made:
            sidecar.start()
        yield made
    finally:
        for sidecar in made:
            sidecar.close()


def roll(front: Service, old: SidecarProcess, new: SidecarProcess) -> None:
    """Take the new one into service and the old one out of it, and end the old one."""
    front.ready.append(new.port)
    front.ready.remove(old.port)
    time.sleep(OUT_OF_SERVICE_SECONDS)
    assert old.end() == 0
    assert "Traceback" not in old.log


def refused(answers: Answers) -> int:
    return sum(count for answer, count in answers.items() if answer.code != 200 or answer.error)


@pytest.mark.timeout(600)
def test_rolled_under_load_no_call_is_lost(
    url: str,
    sidecars: list[SidecarProcess],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    go = build(tmp_path)
    old, new = sidecars[:2], sidecars[2:]
    store = JobStore.open(url, lease=dt.timedelta(hours=5), max_attempts=3)
    with closing(store), service(old[0].port, old[1].port) as front:
        asks = [wanted(FIRST_DATE + dt.timedelta(days=i)) for i in range(NEXTS + CONNECTIONS)]
        store.enqueue(asks, now=dt.datetime.now(dt.UTC))
        held = [job.id for job in store.lease(CONNECTIONS, now=dt.datetime.now(dt.UTC))]
        base = f"{front.url}/v2/job"
        urls = [
            f"{base}/update?id={quote(job_id, safe='')}&state=parsing&detail={UPDATED}"
            for job_id in held
        ]
        begun = time.monotonic()
        process = go.start(
            Group(name="next", urls=[f"{base}/next"], connections=CONNECTIONS, calls=NEXTS),
            Group(name="update", urls=urls, connections=CONNECTIONS),
        )

        def handed() -> int:
            return store.counts().get(JobState.INIT, 0)

        until(lambda: handed() > NEXTS // 20, "no jobs were handed out")
        roll(front, old[0], new[0])
        roll(front, old[1], new[1])
        at_roll = handed()
        found = results(process)
        seconds = time.monotonic() - begun
        ids = [json.loads(a.body)["ID"] for a in found["next"] if a.code == 200 and not a.error]
        twice = sum(n - 1 for a, n in found["next"].items() if a.code == 200)
        lost = handed() - len(ids)
        calls = sum(map(sum, (answers.values() for answers in found.values())))
        failed = {name: refused(answers) for name, answers in found.items()}
    with capsys.disabled():
        print(
            f"\n2 x {CONNECTIONS} connections: {calls} calls in {seconds:.1f} s, both sidecars"
            f" replaced; {lost} lost, {twice} doubled, {failed['update']} updates and"
            f" {failed['next']} nexts refused, {front.refused} connections refused"
        )
    assert at_roll < NEXTS, "the load had ended before both were replaced"
    assert failed == {"next": 0, "update": 0}, found
    assert (lost, twice) == (0, 0)
    assert len(set(ids)) == NEXTS
    assert states_entered(url) == {
        JobState.INIT: NEXTS + CONNECTIONS,
        JobState.PARSING: CONNECTIONS,
    }


def states_entered(url: str) -> dict[str, int]:
    """How often a job came to each state of a parser."""
    e = schema.events.c
    query = select(e.state, func.count()).where(e.state != JobState.QUEUED).group_by(e.state)
    engine = open_engine(url)
    with engine.connect() as connection:
        found = {row[0]: int(row[1]) for row in connection.execute(query)}
    engine.dispose()
    return found
