"""The store and a model in plain Python, together through random interleavings of all calls."""

import datetime as dt
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from postgres import empty_database
from request_rules import RUNS, RequestRules
from store_model import ENDED, MAX_ATTEMPTS, STAGES, Model, Wish, described

from gardener_api.jobs.job import Job, JobKey, JobRequest, JobState, Priority, TransitionError
from gardener_api.jobs.parser_calls import (
    BadState,
    Call,
    Error,
    Gone,
    Heartbeat,
    Next,
    NoJob,
    Update,
)
from gardener_api.store.engine import SCHEMA
from gardener_api.store.store import JobStore

LEASE = dt.timedelta(hours=1)
KEYS = [
    JobKey(bucket="b", experiment="ndt", datatype=datatype, date=dt.date(2024, 3, day))
    for datatype in ("annotation2", "ndt7")
    for day in (1, 2)
]
FIRST = ("loading", "deduplicating", "joining")


class Machine(RequestRules):
    """Drives both; what differs is a fault."""

    def __init__(self, fresh_url: Callable[[], str]) -> None:
        super().__init__()
        self.fresh_url = fresh_url
        self.ids: list[str] = []

    @initialize()
    def begin(self) -> None:
        self.url = self.fresh_url()
        self.open()

    def open(self) -> None:
        self.store = JobStore.open(self.url, lease=LEASE, max_attempts=MAX_ATTEMPTS)

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        for job in self.store.jobs(limit=1000):
            events = self.store.events(job.number)
            assert events[-1].state == job.state
            assert [e.state for e in events[:-1]] == [e.left for e in events[1:]]
        self.store.close()

    def latest(self, key: JobKey) -> Model | None:
        return max(
            (job for job in self.jobs if job.key == key),
            key=lambda job: job.generation,
            default=None,
        )

    def ask(self, key: JobKey, run_id: str, priority: Priority, archives: int | None) -> JobRequest:
        return JobRequest(
            key=key,
            requester=RUNS[run_id],
            run_id=run_id,
            backfill_id=None,
            covers_tables=False,
            priority=priority,
            daily=priority is Priority.DAILY,
            filter="",
            tmp="t",
            raw="r",
            join=None,
            rank=0 if key.datatype == "annotation2" else 1,
            archives=archives,
        )

    @rule(
        keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=4),
        run_id=st.sampled_from(list(RUNS)),
        priority=st.sampled_from(Priority),
        archives=st.sampled_from([None, 0, 5]),
    )
    def enqueue(
        self, keys: list[JobKey], run_id: str, priority: Priority, archives: int | None
    ) -> None:
        self.now += dt.timedelta(seconds=1)
        asks = [self.ask(key, run_id, priority, archives) for key in keys]
        jobs = self.store.enqueue(asks, now=self.now)
        expected = [self.model_ask(key, run_id, priority, archives) for key in keys]
        assert [job.id for job in jobs] == [job.id for job in expected]

    def model_ask(
        self, key: JobKey, run_id: str, priority: Priority, archives: int | None
    ) -> Model:
        job, requester = self.latest(key), RUNS[run_id]
        joins = job is not None and (
            (requester in job.wishes and job.state not in ("failed", "withdrawn"))
            or (job.state not in ENDED and job.state != "joining" and not job.had_ended)
        )
        if job is None or not joins:
            if job is not None and job.state not in ENDED:
                job.enter("withdrawn", "its key was requested again")
            generation = job.generation + 1 if job else 1
            job = Model(key, generation, priority, "queued")
            if archives == 0:
                job.parsed = True
                job.enter("postProcessing", "no archive files")
            self.jobs.append(job)
        job.priority = min(job.priority, priority)
        job.wishes[requester] = Wish(run_id, self.now)
        return job

    def model_next(self, parser: str) -> Model | None:
        queued = [job for job in self.jobs if job.state == "queued"]
        if not queued:
            return None
        # Numbers go up in the order in which jobs were made.
        job = min(
            queued,
            key=lambda j: (j.priority, j.key.date, j.key.datatype, self.jobs.index(j)),
        )
        job.enter("init")
        job.parser, job.handed_out, job.expires = parser, True, self.now + LEASE
        self.ids.append(job.id)
        return job

    @precondition(lambda self: self.in_states("queued"))
    @rule(count=st.integers(1, 3))
    def next(self, count: int) -> None:
        self.do([Next("p")] * count)

    @precondition(lambda self: self.in_states("init", "parsing"))
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.in_states("init", "parsing")))
        self.do([Update(job.id, "postProcessing", "done")])

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def call(self, data: st.DataObject) -> None:
        held = [job.id for job in self.in_states("init", "parsing")]
        guessed = [job.id for job in self.jobs]
        ids = st.sampled_from(held + self.ids + guessed)
        some = st.one_of(
            st.builds(Heartbeat, ids),
            st.builds(Error, ids, st.sampled_from(["no disk", "no net"])),
            st.builds(
                Update,
                ids,
                st.sampled_from(["parsing", "postProcessing", "loading", "nonsense"]),
                st.sampled_from(["", "-", "a file"]),
            ),
            st.builds(Next, st.just("q")),
        )
        self.do(data.draw(st.lists(some, min_size=1, max_size=5)))

    def do(self, calls: Sequence[Call]) -> None:
        answers = self.store.apply(calls, now=self.now)
        # All at the same time: that a batch hands out last is as good as any order.
        for call, answer in sorted(
            zip(calls, answers, strict=True), key=lambda pair: isinstance(pair[0], Next)
        ):
            if isinstance(call, Next):
                job = self.model_next(call.parser)
                assert (answer.id if isinstance(answer, Job) else answer) == (
                    job.id if job else NoJob()
                )
            else:
                assert type(answer) is self.model_call(call), (call, answer)

    def model_call(self, call: Heartbeat | Update | Error) -> type:
        job = next((j for j in self.jobs if j.id == call.id and j.handed_out), None)
        if job is None:
            return Gone
        held = job.state in ("init", "parsing")
        if not held and not job.parsed:
            return Gone
        match call:
            case Heartbeat():
                if held:
                    job.expires = self.now + LEASE
                return Job
            case Error():
                if not held:
                    return Gone
                job.end_attempt(call.error)
                return Job
            case Update():
                return self.model_update(job, call, held=held)

    def model_update(self, job: Model, call: Update, *, held: bool) -> type:
        detail = job.detail if call.detail == "-" else call.detail
        if call.state == "postProcessing":
            if held:
                job.expires, job.parsed = None, True
                job.enter("postProcessing", detail)
            elif job.state == "postProcessing":
                job.detail = detail
            return Job
        if call.state == "parsing" and held:
            job.expires = self.now + LEASE
            job.enter("parsing", detail)
            return Job
        return BadState

    @precondition(lambda self: self.in_states("init", "parsing"))
    @rule(minutes=st.sampled_from([1, 30, 61]))
    def time_goes_by(self, minutes: int) -> None:
        self.now += dt.timedelta(minutes=minutes)
        over = [job for job in self.jobs if job.expires and job.expires <= self.now]
        expired = self.store.expire(now=self.now)
        assert {job.key for job in expired} == {job.key for job in over}
        errors = {job.key: job.error for job in expired}
        for job in over:
            assert f"attempt {job.attempt} of {MAX_ATTEMPTS}" in errors[job.key]
            job.end_attempt(errors[job.key])

    @precondition(lambda self: any(job.parsed for job in self.jobs))
    @rule(
        data=st.data(),
        state=st.sampled_from([*STAGES, "loading", "complete"]),
        run_id=st.sampled_from(["t", "u"]),
    )
    def stage(self, data: st.DataObject, state: str, run_id: str) -> None:
        key = data.draw(st.sampled_from([job.key for job in self.jobs if job.parsed]))
        job = self.latest(key)
        applies = (
            job is not None
            and job.parsed
            and not (job.state == "postProcessing" and state != "loading")
            and (job.run_id == run_id or job.takes(state))
        )
        if job is None or not applies:
            assert self.store.stage(key, JobState(state), run_id=run_id, now=self.now) is None
            return
        later = [*STAGES, "complete"]
        legal = (
            job.state == state
            or (job.state != "withdrawn" and state in FIRST)
            or (
                job.state in STAGES
                and (
                    later.index(state) > later.index(job.state)
                    or (job.state == "deduplicating" and state in STAGES)
                )
            )
        )
        if not legal:
            with pytest.raises(TransitionError):
                self.store.stage(key, JobState(state), run_id=run_id, now=self.now)
            return
        self.store.stage(key, JobState(state), run_id=run_id, detail="d", now=self.now)
        if job.state != state:
            job.failed_in = None
            if state == "complete":
                job.error = ""
        job.run_id = run_id
        job.enter(state, "d")

    @precondition(lambda self: self.in_states("postProcessing", *STAGES))
    @rule(data=st.data(), run_id=st.sampled_from(["t", "u"]), own=st.booleans())
    def fail_stage(self, data: st.DataObject, run_id: str, own: bool) -> None:
        key = data.draw(st.sampled_from([job.key for job in self.jobs]))
        job = self.latest(key)
        stored = self.store.latest(key)
        number = stored.number if stored and own else None
        failed = self.store.fail_stage(key, "bad field", run_id=run_id, number=number, now=self.now)
        mine = job is not None and (
            (job.state in STAGES and job.run_id == run_id)
            or (job.state == "postProcessing" and own)
        )
        assert (failed is not None) is mine
        if job is not None and mine:
            job.failed_in, job.error, job.run_id = job.state, "bad field", run_id
            job.enter("failed", job.detail)

    @precondition(lambda self: self.jobs)
    @rule()
    def restart(self) -> None:
        self.store.close()
        self.open()

    @invariant()
    def same_jobs(self) -> None:
        if not hasattr(self, "store"):
            return
        expected = {
            job.id: {name: getattr(job, name) for name in ("id", *described_names)}
            for job in self.jobs
        }
        assert {job.id: described(job) for job in self.store.jobs(limit=1000)} == expected

    @invariant()
    def same_facts(self) -> None:
        if not hasattr(self, "store"):
            return
        assert sorted(i.job.id for i in self.store.unreported_parses()) == sorted(
            j.id for j in self.jobs if j.parsed and not j.reported and j.state != "withdrawn"
        )
        assert sorted(i.job.id for i in self.store.parsed_jobs()) == sorted(
            j.id for j in self.jobs if j.state == "postProcessing"
        )
        open_jobs = [j for j in self.jobs if j.state not in ENDED]
        assert {k: j.id for k, j in self.store.open_keys(KEYS).items()} == {
            j.key: j.id for j in open_jobs
        }
        assert len({j.key for j in open_jobs}) == len(open_jobs)


described_names = (
    "state", "attempt", "priority", "detail", "error", "failed_in", "parser", "run_id", "expires",
    "parsed", "had_ended",
)  # fmt: skip


def run(fresh_url: Callable[[], str], examples: int) -> None:
    class OnThisDatabase(Machine):
        def __init__(self) -> None:
            super().__init__(fresh_url)

    run_state_machine_as_test(
        OnThisDatabase,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            # Every step commits: to shrink takes minutes. Whoever needs it adds Phase.shrink.
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_store_and_model_on_sqlite(tmp_path: Path) -> None:
    def fresh_url() -> str:
        return f"sqlite:///{tempfile.mkdtemp(dir=tmp_path)}/gardener.db"

    run(fresh_url, examples=int(os.environ.get("GARDENER_EXAMPLES", "12")))


def test_store_and_model_on_postgresql(postgresql_url: str) -> None:
    with empty_database(postgresql_url) as url, psycopg.connect(url, autocommit=True) as connection:

        def fresh_url() -> str:
            connection.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
            return url

        run(fresh_url, examples=int(os.environ.get("GARDENER_EXAMPLES", "5")))
