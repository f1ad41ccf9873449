"""A sidecar that is killed at any moment, under load, has kept every call that it acknowledged.

Parsers call, each remembers what was answered and what was cut off, and after every kill and
restart all of it is compared with the store. ``GARDENER_KILLS`` is how many kills each database
gets: a few by default, for a long run 50.
"""

import asyncio
import datetime as dt
import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from urllib.parse import urlencode

import pytest
from job_requests import wanted
from sidecar_process import SidecarProcess
from sqlalchemy import select

from gardener_api.jobs.job import PARSE_ERROR, PARSING_STATES, JobState
from gardener_api.jobs.parser_calls import Call, Error, Heartbeat, Next, Update
from gardener_api.store import schema
from gardener_api.store.engine import open_engine
from gardener_api.store.store import JobStore

KILLS = int(os.environ.get("GARDENER_KILLS", "3"))
PARSERS = 32
JOBS_A_ROUND = 600
MAX_ATTEMPTS = 3
LOAD_SECONDS = (0.05, 0.6)  # before a kill
FIRST_DATE = dt.date(1950, 1, 1)

EFFECTS = (JobState.INIT, JobState.PARSING, JobState.POST_PROCESSING, PARSE_ERROR)
"""What calls leave among the events of an attempt, each once."""


@dataclass
class Attempt:
    """What the parser that was given an attempt knows of it."""

    id: str
    sent: set[str] = field(default_factory=lambda: {str(JobState.INIT)})  # effects, if done
    kept: set[str] = field(default_factory=lambda: {str(JobState.INIT)})  # effects acknowledged
    detail: int = 0  # the last that was acknowledged; each update says one more
    last: dt.datetime = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)  # sending of the last acknowledged

    @property
    def key(self) -> str:
        return self.id.partition("~")[0]

    @property
    def number(self) -> int:
        """Every key is asked for once here: its IDs differ in the attempt alone."""
        version = self.id.partition("~")[2]
        return int(version.partition(".")[2]) if version else 1


@dataclass
class Ledger:
    """What all parsers know."""

    attempts: dict[str, Attempt] = field(default_factory=dict)
    acknowledged: int = 0
    cut_nexts: int = 0  # each may have handed out a job that no parser knows of
    handed_twice: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


class Parser:
    """Takes jobs and reports on them; what was cut off it says again, as the Go client does."""

    def __init__(self, ledger: Ledger, seed: int) -> None:
        self._ledger = ledger
        self._random = random.Random(seed)
        self._attempt: Attempt | None = None
        self._script: Iterator[Call] = iter(())
        self._pending: Call | None = None  # sent, not answered

    async def work(self, port: int) -> None:
        """Call until the sidecar dies."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with closing(writer):
                while True:
                    await self._call(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            if isinstance(self._pending, Next):
                self._ledger.cut_nexts += 1

    async def _call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        repeated = self._pending is not None
        call = self._pending or next(self._script, None) or Next()
        self._pending = call
        if self._attempt:
            self._attempt.sent |= effects(call)
        sent = dt.datetime.now(dt.UTC)
        writer.write(request(call))
        code, body = await response(reader)
        self._pending = None
        if isinstance(call, Next):
            if code == 200:
                self._take(json.loads(body)["ID"], sent)
            elif code == 500:  # no job
                await asyncio.sleep(0.005)
            else:
                self._ledger.refused.append(f"next: {code} {body!r}")
        elif code == 200:
            self._acknowledge(call, sent)
        elif not (code == 410 and repeated and isinstance(call, Error)):
            # A repeated error is refused where it was done and its answer was cut off. Nothing
            # else may be: the parser has the job.
            self._ledger.refused.append(f"{call}: {code} {body!r}")
            self._script, self._attempt = iter(()), None

    def _take(self, job_id: str, sent: dt.datetime) -> None:
        self._ledger.acknowledged += 1
        if job_id in self._ledger.attempts:
            self._ledger.handed_twice.append(job_id)
        self._attempt = Attempt(job_id, last=sent)
        self._ledger.attempts[job_id] = self._attempt
        self._script = self._life(job_id)

    def _life(self, job_id: str) -> Iterator[Call]:
        files = self._random.randint(1, 5)
        for i in range(1, files + 1):
            yield Update(job_id, JobState.PARSING, str(i))
            if self._random.random() < 0.3:
                yield Heartbeat(job_id)
        if self._random.random() < 0.3:
            yield Error(job_id, f"broken archive {self._random.randrange(10**9)}")
        else:
            yield Update(job_id, JobState.POST_PROCESSING, str(files + 1))

    def _acknowledge(self, call: Call, sent: dt.datetime) -> None:
        assert self._attempt is not None
        self._ledger.acknowledged += 1
        self._attempt.kept |= effects(call)
        self._attempt.last = sent
        if isinstance(call, Update):
            self._attempt.detail = int(call.detail)


def effects(call: Call) -> set[str]:
    """The event that a call leaves, if any."""
    match call:
        case Update():
            return {call.state}
        case Error():
            return {PARSE_ERROR}
        case Next() | Heartbeat():
            return set()


def request(call: Call) -> bytes:
    """The call on the wire."""
    match call:
        case Next():
            target = "next"
        case Update():
            form = {"id": call.id, "state": call.state, "detail": call.detail}
            target = f"update?{urlencode(form)}"
        case Heartbeat():
            target = f"heartbeat?{urlencode({'id': call.id})}"
        case Error():
            target = f"error?{urlencode({'id': call.id, 'error': call.error})}"
    return f"POST /v2/job/{target} HTTP/1.1\r\nHost: sidecar\r\nContent-Length: 0\r\n\r\n".encode()


async def response(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Code and body of the next response."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    return int(head[0].split()[1]), await reader.readexactly(int(headers["content-length"]))


async def load_and_kill(parsers: list[Parser], sidecar: SidecarProcess, seconds: float) -> None:
    """All parsers work; in the midst of it the sidecar dies."""
    async with asyncio.TaskGroup() as tasks:
        for parser in parsers:
            tasks.create_task(parser.work(sidecar.port))
        await asyncio.sleep(seconds)
        sidecar.kill()


def enqueue(url: str, first: int, count: int) -> None:
    """Ask for that many jobs, of dates that were not asked for yet."""
    asks = [wanted(FIRST_DATE + dt.timedelta(days=first + i)) for i in range(count)]
    store = JobStore.open(url, lease=dt.timedelta(hours=5), max_attempts=MAX_ATTEMPTS)
    with closing(store):
        store.enqueue(asks, now=dt.datetime.now(dt.UTC))


@dataclass
class Comparison:
    """Where store and ledger differ."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)


def compare(url: str, ledger: Ledger, enqueued: int) -> Comparison:
    """Compare the whole store with all that parsers know."""
    found = Comparison(doubled=[f"{job_id}: handed out twice" for job_id in ledger.handed_twice])
    engine = open_engine(url)
    c, e = schema.jobs.c, schema.events.c
    columns = (c.key, c.attempt, c.state, c.detail, c.updated, c.parsed)
    with engine.connect() as connection:
        jobs = {row.key: row for row in connection.execute(select(*columns))}
        # Read after the jobs: PostgreSQL may still be at a call that was cut off.
        told = Counter(
            (row.key, row.attempt, row.state)
            for row in connection.execute(
                select(c.key, e.attempt, e.state)
                .join(schema.jobs, c.number == e.job)
                .where(e.state.in_(EFFECTS))
            )
        )
    engine.dispose()
    if len(jobs) != enqueued:
        found.lost.append(f"{enqueued} jobs were asked for, {len(jobs)} are there")
    found.doubled += [f"{what}: {count} events" for what, count in told.items() if count > 1]
    known = {(a.key, a.number): a for a in ledger.attempts.values()}
    for (key, number), attempt in known.items():
        done = {state for state in EFFECTS if told[key, number, state]}
        found.lost += [f"{attempt}: no {effect}" for effect in attempt.kept - done]
        found.doubled += [f"{attempt}: {effect}" for effect in done - attempt.sent]
        job = jobs[key]
        if PARSE_ERROR in attempt.kept and job.attempt == number and job.state != JobState.FAILED:
            found.lost.append(f"{attempt}: not ended, {job}")
        elif JobState.POST_PROCESSING in attempt.kept and not (
            job.parsed and job.state == JobState.POST_PROCESSING and job.attempt == number
        ):
            found.lost.append(f"{attempt}: not parsed, {job}")
        elif job.attempt == number and job.state in PARSING_STATES:
            # Heartbeats and the updates of single files leave no event; they leave these.
            if int(job.detail or 0) < attempt.detail or job.updated < attempt.last:
                found.lost.append(f"{attempt}: older, {job}")
        elif PARSE_ERROR not in attempt.sent and JobState.POST_PROCESSING not in attempt.sent:
            found.lost.append(f"{attempt}: no longer held, {job}")
    unknown = [
        (key, number)
        for key, number, state in told
        if state == JobState.INIT and (key, number) not in known
    ]
    if len(unknown) > ledger.cut_nexts:
        found.doubled.append(f"{len(unknown)} handed out to nobody, {ledger.cut_nexts} cut off")
    return found


@pytest.mark.timeout(60 + 10 * KILLS)
def test_acknowledged_calls_survive_kills(
    sidecar: SidecarProcess, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    moment = random.Random(seed)
    ledger = Ledger()
    parsers = [Parser(ledger, seed + i) for i in range(PARSERS)]
    enqueued = 0
    restarts = []
    found = Comparison()
    for _ in range(KILLS):
        enqueue(sidecar.url, enqueued, JOBS_A_ROUND)
        enqueued += JOBS_A_ROUND
        asyncio.run(load_and_kill(parsers, sidecar, moment.uniform(*LOAD_SECONDS)))
        begun = time.monotonic()
        sidecar.start()
        restarts.append(time.monotonic() - begun)
        found = compare(sidecar.url, ledger, enqueued)
        if found.lost or found.doubled or ledger.refused:
            break
    with capsys.disabled():
        print(
            f"\n{database}: {len(restarts)} kills, {ledger.acknowledged} acknowledged calls,"
            f" {len(found.lost)} lost, {len(found.doubled)} doubled; {len(ledger.attempts)}"
            f" attempts handed out, slowest restart {max(restarts):.1f} s (seed {seed})"
        )
    assert found.lost == []
    assert found.doubled == []
    assert ledger.refused == []
    assert ledger.acknowledged > 20 * KILLS, "there was no load"
