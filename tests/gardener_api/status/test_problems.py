import datetime as dt
from dataclasses import replace

import pytest
from problem_facts import DAY, HOUR, MINUTE, NOW, fact, failed, problems

from gardener_api.config import GardenerConfig
from gardener_api.jobs.job import LEASE_EXPIRED, PARSE_ERROR, JobState
from gardener_api.jobs.snapshot import (
    DamagedArchives,
    JobFact,
    LostAttempt,
    Snapshot,
    missing_dates,
)
from gardener_api.status.problem import SHOWN
from gardener_api.status.problems import find_problems, shape, what_to_do

ADVICE = "load t: No such field: x. What to do: add it to the schema."


def test_nothing_is_wrong(config: GardenerConfig, everything: Snapshot) -> None:
    assert problems(config, everything) == []
    assert find_problems(config, Snapshot(), now=NOW) == [], "an empty store"


class TestQueue:
    def test_nobody_asks(self, config: GardenerConfig, everything: Snapshot) -> None:
        [problem] = problems(config, everything, head=fact(ago=3 * HOUR), queued=412)
        assert problem.title == "No parser asks for jobs: 412 jobs queued"
        assert "since 2024-03-20 11:00 UTC (3 h)" in problem.about
        assert "last handed out: 2024-03-20 13:00 UTC" in problem.about
        assert problem.grave
        assert problem.query == {"state": "queued", "sort": "state"}

    @pytest.mark.parametrize(
        ("waits", "handed_out", "wrong"),
        [
            (3 * HOUR, None, True),
            (3 * HOUR, NOW - 29 * MINUTE, False),
            (3 * HOUR, NOW - 30 * MINUTE, True),
            (29 * MINUTE, NOW - 9 * HOUR, False),
            (29 * MINUTE, None, False),
        ],
    )
    def test_when_nobody_asks(
        self,
        config: GardenerConfig,
        everything: Snapshot,
        waits: dt.timedelta,
        handed_out: dt.datetime | None,
        wrong: bool,
    ) -> None:
        snapshot = replace(everything, head=fact(ago=waits), handed_out=handed_out, queued=1)
        assert bool(find_problems(config, snapshot, now=NOW)) is wrong

    def test_a_slow_queue(self, config: GardenerConfig, everything: Snapshot) -> None:
        late, soon = fact(ago=25 * HOUR), fact(ago=23 * HOUR, date=dt.date(2024, 3, 18))
        snapshot = replace(everything, recent=[late, soon], head=late, handed_out=NOW, complete=())
        [title, *_] = [p.title for p in find_problems(config, snapshot, now=NOW)]
        assert title == "1 job of the last 30 days queued for more than 1 d: ndt/ndt7"
        again = replace(snapshot, complete=everything.complete)
        assert find_problems(config, again, now=NOW) == [], "asked for again"


class TestFailed:
    def test_by_reason(self, config: GardenerConfig, everything: Snapshot) -> None:
        jobs = [
            failed("load tmp.ndt7$20240301: bad row 17", number=1),
            failed("load tmp.ndt7$20240302: bad row 3", number=2, datatype="annotation2"),
            failed("load tmp.ndt7$20240303: bad row 8", number=3),
            failed("no such bucket", number=4),
        ]
        many, one = problems(config, everything, failed=jobs)
        assert many.title == "3 jobs failed in loading: ndt/ndt7 2, ndt/annotation2 1"
        assert [job.number for job in many.jobs] == [1, 3, 2]
        assert one.title == "1 job failed in loading: ndt/ndt7"
        assert one.query == {
            "state": "failed",
            "text": "no such bucket",
            "experiment": "ndt",
            "datatype": "ndt7",
        }

    def test_the_same_reason_in_another_state_is_another_problem(
        self, config: GardenerConfig, everything: Snapshot
    ) -> None:
        jobs = [failed("x"), failed("x", failed_in=JobState.COPYING)]
        assert len(problems(config, everything, failed=jobs)) == 2

    def test_the_advice_of_the_error(self, config: GardenerConfig, everything: Snapshot) -> None:
        [problem] = problems(config, everything, failed=[failed(ADVICE)])
        assert (problem.about, problem.todo) == (
            "load t: No such field: x.",
            "Add it to the schema.",
        )

    def test_few_are_linked(self, config: GardenerConfig, everything: Snapshot) -> None:
        jobs = [
            failed("x", number=day, date=dt.date(2024, 1, 1) + day * DAY) for day in range(1, 50)
        ]
        [problem] = problems(config, everything, failed=jobs)
        assert problem.count == 49
        assert [job.number for job in problem.jobs] == list(range(49, 49 - SHOWN, -1))
        assert problem.jobs[0].label == "ndt/ndt7 2024-02-19"

    @pytest.mark.parametrize(
        ("state", "error", "expected"),
        [
            (JobState.PARSING, "panic", "The message is the parser's"),
            (JobState.PARSING, "lease ended: parser x was silent", "around its last call"),
            (JobState.INIT, "lease ended: parser x was silent", "materialize parsed/ndt/ndt7"),
            (JobState.COPYING, "killed", "Open the job's Dagster run"),
        ],
    )
    def test_advice_by_state(self, state: JobState, error: str, expected: str) -> None:
        assert expected in what_to_do(error, failed_in=state, source="ndt/ndt7")


class TestParsers:
    def test_quiet(self, config: GardenerConfig, everything: Snapshot) -> None:
        def held(state: JobState, quiet: dt.timedelta, parser: str) -> JobFact:
            lease = NOW + 5 * HOUR - quiet
            return fact(state, updated=NOW - quiet, lease_expires=lease, parser=parser)

        jobs = [
            held(JobState.PARSING, 31 * MINUTE, "a"),
            held(JobState.PARSING, 2 * HOUR, "a"),
            held(JobState.PARSING, MINUTE, "a"),
            held(JobState.INIT, 40 * MINUTE, "b"),
        ]
        init, parsing = problems(config, everything, in_hand=jobs)
        assert parsing.title == (
            "2 jobs in parsing without a word from the parser for up to 2 h: a"
        )
        assert init.title == "1 job in init without a word from the parser for up to 40 min: b"
        assert "cannot list the archives" in init.todo
        assert not init.grave

    def test_a_short_lease(self, config: GardenerConfig, everything: Snapshot) -> None:
        short = config.model_copy(
            update={"tracker": config.tracker.model_copy(update={"timeout": 10 * MINUTE})}
        )
        job = fact(JobState.PARSING, updated=NOW - 5 * MINUTE, lease_expires=NOW + 5 * MINUTE)
        assert problems(config, everything, in_hand=[job]) == []
        assert len(problems(short, everything, in_hand=[job])) == 1

    def test_past_the_lease(self, config: GardenerConfig, everything: Snapshot) -> None:
        late = fact(JobState.PARSING, updated=NOW - 6 * HOUR, lease_expires=NOW - HOUR)
        [problem] = problems(config, everything, in_hand=[late])
        assert problem.title == "1 job past the end of the lease"
        assert problem.grave
        just = replace(late, lease_expires=NOW - MINUTE)
        [quiet] = problems(config, everything, in_hand=[just])
        assert "without a word" in quiet.title

    def test_lost_attempts(self, config: GardenerConfig, everything: Snapshot) -> None:
        def lost(name: str, ago: dt.timedelta) -> LostAttempt:
            return LostAttempt(
                number=3,
                experiment="ndt",
                datatype="ndt7",
                date=dt.date(2024, 3, 1),
                name=name,
                at=NOW - ago,
                detail=f"{name} {ago}",
            )

        attempts = [
            lost(LEASE_EXPIRED, HOUR),
            lost(LEASE_EXPIRED, 2 * HOUR),
            lost(PARSE_ERROR, 23 * HOUR),
            lost(PARSE_ERROR, 25 * HOUR),
        ]
        leases, errors = problems(config, everything, lost=attempts)
        assert leases.title == "2 attempts lost since 2024-03-19 14:00 UTC: its lease ended"
        assert leases.about == "2024-03-20 13:00 UTC: leaseExpired 1:00:00"
        assert (
            errors.title
            == "1 attempt lost since 2024-03-19 14:00 UTC: the parser reported an error"
        )
        assert [(job.number, job.label) for job in leases.jobs] == [(3, "ndt/ndt7 2024-03-01")]


class TestMissing:
    def test_dates_without_a_job(self, config: GardenerConfig, everything: Snapshot) -> None:
        gone = {("ndt/ndt7", dt.date(2024, 3, day)) for day in (3, 4, 5, 9)}
        complete = set(everything.complete) - gone
        [problem] = problems(config, everything, complete=complete)
        assert problem.title == "4 days are missing: no job was made"
        assert problem.about == "ndt/ndt7: 2024-03-03 to 2024-03-05, 2024-03-09"
        assert "schedule daily on" in problem.todo

    def test_sources_that_miss_the_same(self, config: GardenerConfig, everything: Snapshot) -> None:
        complete = {(name, date) for name, date in everything.complete if date.day != 19}
        [problem] = problems(config, everything, complete=complete)
        assert problem.about == "ndt/annotation2, ndt/ndt7: 2024-03-19"

    @pytest.mark.parametrize("state", list(JobState))
    def test_a_job_that_was_withdrawn_is_none(
        self, config: GardenerConfig, everything: Snapshot, state: JobState
    ) -> None:
        job = fact(state, ago=MINUTE)
        complete = set(everything.complete) - {(job.source, job.date)}
        snapshot = replace(everything, complete=complete, recent=[job])
        missing = missing_dates(config, snapshot, now=NOW)
        assert bool(missing) is (state is JobState.WITHDRAWN)

    @pytest.mark.parametrize(
        ("now", "last"),
        [
            (dt.datetime(2024, 3, 20, 11, 29, tzinfo=dt.UTC), 18),
            (dt.datetime(2024, 3, 20, 11, 30, tzinfo=dt.UTC), 19),
        ],
    )
    def test_yesterday_is_due_after_the_schedule(
        self, config: GardenerConfig, now: dt.datetime, last: int
    ) -> None:
        snapshot = Snapshot(begun=now - 90 * DAY)
        dates = missing_dates(config, snapshot, now=now)["ndt/ndt7"]
        assert (dates[0], dates[-1]) == (config.start_date, dt.date(2024, 3, last))

    @pytest.mark.parametrize(
        ("begun", "first"),
        [
            (dt.datetime(2024, 3, 15, 10, 29, tzinfo=dt.UTC), 14),
            (dt.datetime(2024, 3, 15, 10, 31, tzinfo=dt.UTC), 15),
        ],
    )
    def test_what_was_before_the_gardener_is_not_missing(
        self, config: GardenerConfig, begun: dt.datetime, first: int
    ) -> None:
        dates = missing_dates(config, Snapshot(begun=begun), now=NOW)["ndt/ndt7"]
        assert dates[0] == dt.date(2024, 3, first)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("parser 10.0.0.1 in attempt 3", "parser 10.0.0.22 in attempt 2", True),
        ("at 'ndt/a.tgz' now", "at 'ndt/b.tgz' now", True),
        ("gs://b/a.jsonl is bad", "gs://b/b.jsonl is bad", True),
        ("bad. BigQuery job a (u).", "bad. BigQuery job b (u).", True),
        ("bad. What to do: a.", "bad. What to do: b.", True),
        ("no disk", "no memory", False),
        ("tmp_ndt.ndt7$20240301: full", "tmp_ndt.ndt7$20240302: full", True),
    ],
)
def test_shape(one: str, other: str, same: bool) -> None:
    assert (shape(one) == shape(other)) is same


def test_attempts_of_a_failed_job_are_told_with_it(
    config: GardenerConfig, everything: Snapshot
) -> None:
    attempt = LostAttempt(
        number=7,
        experiment="ndt",
        datatype="ndt7",
        date=dt.date(2024, 3, 19),
        name=PARSE_ERROR,
        at=NOW - HOUR,
        detail="no tar in it",
    )
    [problem] = problems(config, everything, lost=[attempt], failed=[failed("no tar in it")])
    assert problem.title == "1 job failed in loading: ndt/ndt7"
    [problem] = problems(config, everything, lost=[attempt])
    assert problem.title.startswith("1 attempt lost since")


def test_d35_damaged_archives_are_named(config: GardenerConfig, everything: Snapshot) -> None:
    damaged = [
        DamagedArchives(
            number=day,
            experiment="ndt",
            datatype="ndt7",
            date=dt.date(2024, 3, day),
            at=NOW - HOUR,
            detail=f"damaged archives: 1 of 2: {day}.tgz (it is empty; 0 rows kept)",
        )
        for day in (2, 1)
    ]
    [problem] = problems(config, everything, damaged=damaged)
    assert problem.title == "2 jobs with damaged archives: ndt/ndt7"
    assert "ndt/ndt7 2024-03-02: damaged archives: 1 of 2: 2.tgz (it is empty" in problem.about
    assert [job.number for job in problem.jobs] == [2, 1]
    assert not problem.grave
