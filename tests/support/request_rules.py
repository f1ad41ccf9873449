"""The part of the store's state machine that is about requests: reported, taken back."""

import datetime as dt

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from store_model import ENDED, Model

from gardener_api.jobs.job import ParseReport
from gardener_api.store.store import JobStore

# Two runs of a backfill, a run and its retry: a retry asks in the name of the run that it repeats.
RUNS = {"a": "run:a", "a-retried": "run:a", "b1": "backfill:b", "b2": "backfill:b"}
BY = ["a person, who cancelled it", "something else"]


class RequestRules(RuleBasedStateMachine):
    """Rules and facts of requests, for a machine that makes them."""

    store: JobStore

    def __init__(self) -> None:
        super().__init__()
        self.now = dt.datetime(2024, 3, 5, tzinfo=dt.UTC)
        self.jobs: list[Model] = []
        self.reports: list[tuple[Model, ParseReport]] = []

    def in_states(self, *states: str) -> list[Model]:
        return [job for job in self.jobs if job.state in states]

    @precondition(lambda self: self.in_states("queued", "init", "parsing"))
    @rule(run_id=st.sampled_from(list(RUNS)), by=st.sampled_from(BY))
    def withdraw(self, run_id: str, by: str) -> None:
        withdrawn = self.store.withdraw(run_id, by=by, now=self.now)
        over = []
        for job in self.jobs:
            wish = job.wishes.get(RUNS[run_id])
            if wish and wish.run_id == run_id and not wish.withdrawn:
                wish.withdrawn, wish.withdrawn_by = True, by
                if job.state == "queued" and not job.wanted:
                    job.enter("withdrawn", f"withdrawn by {by}")
                    over.append(job.id)
        assert sorted(job.id for job in withdrawn) == sorted(over)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), run_id=st.sampled_from(list(RUNS)))
    def report(self, data: st.DataObject, run_id: str) -> None:
        chosen = self.some_that_ended(data)
        numbers = self.numbers()
        self.store.mark_reported([numbers[job.id] for job in chosen], run_id=run_id, now=self.now)
        for job in chosen:
            job.reported = True
            wish = job.wishes.get(RUNS[run_id])
            if wish and wish.run_id == run_id:
                wish.reported = True

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def read_for_report(self, data: st.DataObject) -> None:
        numbers = self.numbers()
        self.reports = [
            (
                job,
                ParseReport(
                    number=numbers[job.id],
                    requests={who: wish.asked for who, wish in job.wishes.items()},
                ),
            )
            for job in self.some_that_ended(data)
        ]

    @precondition(lambda self: self.reports)
    @rule()
    def confirm_reports(self) -> None:
        """Whatever came between: asked again, taken over, withdrawn."""
        self.store.confirm_reports([told for _, told in self.reports], now=self.now)
        for job, told in self.reports:
            job.reported = True
            for who, asked in told.requests.items():
                job.wishes[who].reported |= job.wishes[who].asked == asked
        self.reports = []

    def some_that_ended(self, data: st.DataObject) -> list[Model]:
        told = [job for job in self.jobs if job.parsed or job.state in ENDED]
        return [job for job in told if data.draw(st.booleans())]

    def numbers(self) -> dict[str, int]:
        return {job.id: job.number for job in self.store.jobs(limit=1000)}

    @invariant()
    def same_requests(self) -> None:
        if not hasattr(self, "store"):
            return
        for run_id, requester in RUNS.items():
            mine = [j for j in self.jobs if requester in j.wishes]
            told = {
                j.id: j.wishes[requester].withdrawn_by
                for j in mine
                if j.wishes[requester].run_id == run_id
                and not j.wishes[requester].reported
                and (
                    j.parsed or j.state in ("failed", "withdrawn") or j.wishes[requester].withdrawn
                )
            }
            outcomes = self.store.unreported(requester, run_id=run_id)
            assert {o.job.id: o.request.withdrawn_by for o in outcomes} == told
            wanted = [j for j in mine if not j.wishes[requester].withdrawn]
            assert sum(self.store.waiting(requester).values()) == len(wanted)
            numbers = self.numbers()
            others = {
                numbers[j.id]: j.wishes[requester].run_id
                for j in mine
                if j.wishes[requester].run_id != run_id
            }
            found = self.store.taken_over(requester, run_id=run_id, numbers=numbers.values())
            assert found == others
        assert self.store.runs_waiting() == {
            wish.run_id
            for job in self.in_states("queued", "init", "parsing")
            for wish in job.wishes.values()
            if not wish.withdrawn
        }
