"""What is wrong with the tables, and what to do about it."""

import datetime as dt
from typing import Any

from problem_facts import DAY, HOUR, MINUTE, fact, problems

from gardener_api.config import GardenerConfig
from gardener_api.jobs.job import JobState
from gardener_api.jobs.snapshot import (
    FailedCheck,
    Snapshot,
)


class TestTables:
    def test_parsed_and_not_taken(self, config: GardenerConfig, everything: Snapshot) -> None:
        waiting = [
            fact(JobState.POST_PROCESSING, ago=40 * MINUTE),
            fact(JobState.POST_PROCESSING, ago=29 * MINUTE, number=8),
        ]
        [problem] = problems(config, everything, in_tables=waiting)
        assert problem.title == "1 job parsed, but nobody began the tables for 40 min"
        assert "Is the Dagster daemon running" in problem.todo
        assert [job.number for job in problem.jobs] == [7]

    def test_a_stage_that_takes_long(self, config: GardenerConfig, everything: Snapshot) -> None:
        jobs = [fact(JobState.COPYING, ago=HOUR), fact(JobState.LOADING, ago=2 * HOUR)]
        fresh = fact(JobState.JOINING, ago=59 * MINUTE)
        [problem] = problems(config, everything, in_tables=[*jobs, jobs[0], fresh])
        assert problem.title == (
            "3 jobs in a stage of the tables for more than 1 h: copying 2, loading 1"
        )
        assert problem.query == {"state": "copying,loading"}

    def test_a_list_that_was_cut(self, config: GardenerConfig, everything: Snapshot) -> None:
        waiting = [fact(JobState.POST_PROCESSING), fact(JobState.POST_PROCESSING)]
        [problem] = problems(config, everything, in_tables=waiting, most=2)
        assert problem.title.startswith("At least 2 jobs parsed")


class TestWithoutArchives:
    def test_a_day_unlike_others(self, config: GardenerConfig, everything: Snapshot) -> None:
        usual = fact(JobState.COMPLETE, archives=412, date=dt.date(2024, 3, 18))
        empty = fact(JobState.COMPLETE, archives=0, number=8)
        [problem] = problems(config, everything, recent=[usual, empty])
        assert problem.title == "1 job had no archives, unlike other days of the source: ndt/ndt7"
        assert problem.about == "ndt/ndt7: 2024-03-19"
        assert "materialize parsed/… for the date in Dagster; within 3 days" in problem.todo
        assert [job.number for job in problem.jobs] == [8]
        assert not problem.grave

    def test_a_source_that_rests(self, config: GardenerConfig, everything: Snapshot) -> None:
        other = fact(JobState.COMPLETE, archives=412, datatype="annotation2")
        recent = [other, fact(JobState.COMPLETE, archives=0, number=8)]
        assert problems(config, everything, recent=recent) == []


class TestSkippedDates:
    def test_d27_a_parsed_date_that_is_no_partition_any_more(
        self, config: GardenerConfig, everything: Snapshot
    ) -> None:
        before = config.start_date - DAY
        skipped = fact(JobState.POST_PROCESSING, ago=2 * HOUR, date=before)
        other = fact(JobState.POST_PROCESSING, ago=2 * HOUR, number=8)
        untaken, problem = problems(config, everything, in_tables=[skipped, other])
        assert [job.number for job in untaken.jobs] == [8]
        assert problem.title == (
            "1 job parsed, but the configuration does not have the date or the source: ndt/ndt7"
        )
        assert problem.about == f"ndt/ndt7: {before}"
        assert f"set start_date (now {config.start_date}) to the first of these dates" in (
            problem.todo
        )
        assert [job.number for job in problem.jobs] == [7]
        assert problem.grave

    def test_d27_a_source_that_is_not_configured_any_more(
        self, config: GardenerConfig, everything: Snapshot
    ) -> None:
        skipped = fact(JobState.POST_PROCESSING, ago=MINUTE, datatype="wehe")
        [problem] = problems(config, everything, in_tables=[skipped])
        assert problem.about == "ndt/wehe: 2024-03-19"


class TestChecks:
    def check(self, **changed: Any) -> FailedCheck:
        values: dict[str, Any] = {
            "number": 7,
            "experiment": "ndt",
            "datatype": "ndt7",
            "date": dt.date(2024, 3, 19),
            "table": "raw_ndt.ndt7",
            "name": "rows_of_week",
            "severity": "warn",
            "description": "3 rows, 114 a week ago",
        }
        return FailedCheck(**values | changed)

    def test_checks_of_a_name_are_one_problem(
        self, config: GardenerConfig, everything: Snapshot
    ) -> None:
        checks = [
            self.check(),
            self.check(number=6, date=dt.date(2024, 3, 18), description="older"),
            self.check(name="unique_keys", severity="error", description="2 ids twice"),
        ]
        error, warning = problems(config, everything, failed_checks=checks)
        assert error.title == "The check unique_keys has not passed on 1 date: ndt/ndt7"
        assert error.grave
        assert warning.title == "The check rows_of_week has not passed on 2 dates: ndt/ndt7"
        assert warning.about == (
            "raw_ndt.ndt7: 2024-03-18 to 2024-03-19\n2024-03-19: 3 rows, 114 a week ago"
        )
        assert not warning.grave
        assert [job.number for job in warning.jobs] == [7, 6]
