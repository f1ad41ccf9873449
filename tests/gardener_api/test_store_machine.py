"""The store and a model in plain Python, together through random interleavings of all calls."""

import datetime as dt
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from store_model import ENDED, MAX_ATTEMPTS, STAGES, Model, Wish, described

from gardener_api.calls import BadState, Call, Error, Gone, Heartbeat, Next, NoJob, Update
from gardener_api.jobs import Ask, Job, JobKey, JobState, Priority, TransitionError
from gardener_api.store import JobStore

LEASE = dt.timedelta(hours=1)
KEYS = [
    JobKey(bucket="b", experiment="ndt", datatype=datatype, date=dt.date(2024, 3, day))
    for datatype in ("annotation2", "ndt7")
    for day in (1, 2)
]
REQUESTERS = ["run:a", "backfill:b", "sensor"]
FIRST = ("loading", "deduplicating", "joining")


class Machine(RuleBasedStateMachine):
    """Drives both; what differs is a fault."""

    def __init__(self, fresh_url: Callable[[], str]) -> None:
        super().__init__()
        self.fresh_url = fresh_url
        self.now = dt.datetime(2024, 3, 5, tzinfo=dt.UTC)
        self.jobs: list[Model] = []
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

    def ask(self, key: JobKey, requester: str, priority: Priority, archives: int | None) -> Ask:
        return Ask(
            key=key,
            requester=requester,
            run_id="r",
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
        requester=st.sampled_from(REQUESTERS),
        priority=st.sampled_from(Priority),
        archives=st.sampled_from([None, 0, 5]),
    )
    def enqueue(
        self, keys: list[JobKey], requester: str, priority: Priority, archives: int | None
    ) -> None:
        asks = [self.ask(key, requester, priority, archives) for key in keys]
        jobs = self.store.enqueue(asks, now=self.now)
        expected = [self.model_ask(key, requester, priority, archives) for key in keys]
        assert [job.id for job in jobs] == [job.id for job in expected]

    def model_ask(
        self, key: JobKey, requester: str, priority: Priority, archives: int | None
    ) -> Model:
        job = self.latest(key)
        joins = job is not None and (
            (requester in job.wishes and job.state not in ("failed", "withdrawn"))
            or (job.state not in ENDED and job.state != "joining" and not job.had_ended)
        )
        if job is None or not joins:
            if job is not None and job.state not in ENDED:
                job.enter("withdrawn", "its key was asked for again")
            generation = job.generation + 1 if job else 1
            job = Model(key, generation, priority, "queued")
            if archives == 0:
                job.parsed = True
                job.enter("postProcessing", "no archive files")
            self.jobs.append(job)
        job.priority = min(job.priority, priority)
        job.wishes[requester] = Wish()
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

    def in_states(self, *states: str) -> list[Model]:
        return [job for job in self.jobs if job.state in states]

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

    @precondition(lambda self: self.in_states("queued", "init", "parsing"))
    @rule(requester=st.sampled_from(REQUESTERS))
    def withdraw(self, requester: str) -> None:
        withdrawn = self.store.withdraw(requester, now=self.now)
        over = []
        for job in self.jobs:
            if requester in job.wishes and not job.wishes[requester].withdrawn:
                job.wishes[requester].withdrawn = True
                if job.state == "queued" and not job.wanted:
                    job.enter("withdrawn", "nobody wants it any more")
                    over.append(job.id)
        assert sorted(job.id for job in withdrawn) == sorted(over)

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
    @rule(data=st.data(), requester=st.sampled_from([None, *REQUESTERS]))
    def report(self, data: st.DataObject, requester: str | None) -> None:
        told = [job for job in self.jobs if job.parsed or job.state in ENDED]
        chosen = [job for job in told if data.draw(st.booleans())]
        by_id = {job.id: job.number for job in self.store.jobs(limit=1000)}
        self.store.mark_reported(
            [by_id[job.id] for job in chosen], requester=requester, now=self.now
        )
        for job in chosen:
            job.announced = True
            for name, wish in job.wishes.items():
                wish.reported |= requester in (None, name)

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
        for requester in REQUESTERS:
            mine = [j for j in self.jobs if requester in j.wishes]
            wanted = [j for j in mine if not j.wishes[requester].withdrawn]
            told = [
                j.id
                for j in wanted
                if not j.wishes[requester].reported
                and (j.parsed or j.state in ("failed", "withdrawn"))
            ]
            assert sorted(j.id for j in self.store.unreported(requester)) == sorted(told)
            assert sum(self.store.waiting(requester).values()) == len(wanted)
        assert sorted(i.job.id for i in self.store.unannounced()) == sorted(
            j.id for j in self.jobs if j.parsed and not j.announced and j.state != "withdrawn"
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

    run(fresh_url, examples=25)


def test_store_and_model_on_postgresql(postgresql_url: str) -> None:
    url = f"{postgresql_url}&options=-csearch_path%3Dmachine"

    def fresh_url() -> str:
        with psycopg.connect(postgresql_url, autocommit=True) as connection:
            connection.execute("DROP SCHEMA IF EXISTS machine CASCADE")
            connection.execute("CREATE SCHEMA machine")
        return url

    run(fresh_url, examples=8)
