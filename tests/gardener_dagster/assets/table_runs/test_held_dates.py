"""Dates whose rows audits hold, and decisions about them, through the op of the tables."""

import datetime as dt

import dagster as dg
import pytest
from chain import failure, resumed
from dagster import DagsterRunStatus
from table_dates import (
    JOINED,
    NDT7,
    Dates,
    day,
    failing,
)

from gardener_api.jobs.job import JobState
from gardener_api.store.publishing.held import Decision, HeldPartition, Outcome
from gardener_dagster.assets.keys import ACCEPT_TAG, DECISION_TAG
from gardener_dagster.planning.due_tables import job_key

ALL = tuple("abcdefghix")
FEWER = tuple("abcdefx")


def held_date(dates: Dates) -> str:
    """Publishes two dates, and parses the first again with fewer rows; the run that holds it."""
    dates.parse(1, 2, ids=ALL)
    assert dates.run(1, 2).success
    dates.parse(2, ids=ALL)
    dates.parse(1, ids=FEWER)
    return dates.run(1, 2).run_id


def decide(dates: Dates, decision: Decision) -> HeldPartition:
    [held] = dates.store.held.waiting()
    decided = dates.store.held.decide(
        held.number, decision, by="ada", reason="a box died", now=dt.datetime.now(dt.UTC)
    )
    assert decided is not None
    return decided


def carry_out(dates: Dates, held: HeldPartition) -> dg.ExecuteInProcessResult:
    key = dg.AssetKey(held.table.split("."))
    return dates.run(1, 1, key, tags={DECISION_TAG: str(held.number)})


def rows(dates: Dates, table: str) -> list[str]:
    return dates.tables.rows.get(f"{table}.ndt7$20240301", [])


def test_fewer_rows_are_held_and_the_other_date_goes_on(dates: Dates) -> None:
    run_id = held_date(dates)
    run = dates.instance.get_run_by_id(run_id)
    assert run is not None
    assert run.status is DagsterRunStatus.FAILURE
    assert dates.error(1).startswith(
        "held: rows_of_previous: 7 rows, 10 in the version before: see in the parser's log what it"
        " left out; ids_of_previous: 7 of the 10 ids of the version before"
    )
    assert "`gardener accept --source ndt/ndt7 --dates 2024-03-01`" in dates.error(1)
    job = dates.store.latest(job_key(dates.config.source(NDT7), day(1)))
    assert job is not None
    assert (job.state, job.failed_in) == (JobState.FAILED, JobState.COPYING)
    assert rows(dates, "raw_ndt") == rows(dates, "ndt") == sorted(ALL)
    assert rows(dates, "tmp_ndt") == sorted(FEWER)
    assert dates.state(2) is JobState.COMPLETE
    # What the checks say is of the published version.
    assert all(
        c.result.passed for c in dates.store.checks.of(job.key) if c.result.name != "annotated"
    )
    [held] = dates.store.held.waiting()
    assert [finding.audit for finding in held.findings] == ["rows_of_previous", "ids_of_previous"]
    assert held.findings[0].numbers == {"rows": 7, "rows of the version before": 10}


def test_the_run_says_what_is_held_and_not_to_re_execute(dates: Dates) -> None:
    dates.parse(1, 2, ids=ALL)
    assert dates.run(1, 2).success
    dates.parse(1, 2, ids=FEWER)
    said = failure(dates.run(1, 2)).splitlines()
    assert said[0].startswith("2 dates failed: 2024-03-01: held: rows_of_previous: 7 rows, 10 in")
    assert said[0].endswith("until then the published partition stays as it is")
    assert said[1].startswith("2024-03-02: held: ")


def test_a_date_that_is_to_be_mended_is_named_before_one_that_is_held(dates: Dates) -> None:
    dates.parse(1, 2, ids=ALL)
    assert dates.run(1, 2).success
    dates.parse(1, ids=FEWER)
    dates.parse(2, ids=ALL)
    dates.tables.hook = failing(2)
    said = failure(dates.run(1, 2)).splitlines()
    assert said[0].startswith(
        "2 dates failed: 2024-03-02: copy t: no. What to do: mend it, then re-"
    )
    assert said[1].startswith("2024-03-01: held: ")


def test_accept_publishes_exactly_the_held_rows(dates: Dates) -> None:
    held_date(dates)
    held = decide(dates, Decision.ACCEPT)
    result = carry_out(dates, held)
    assert result.success
    assert rows(dates, "raw_ndt") == sorted(FEWER)
    assert rows(dates, "tmp_ndt") == []
    assert dates.done(1).count("load") == 2, "not loaded anew"
    assert dates.state(1) is JobState.JOINING
    [change, *_] = dates.store.changes.of("raw_ndt.ndt7", day(1))
    assert (change.rows, change.rows_before, change.ids_removed, change.ids_kept) == (7, 10, 3, 7)
    assert [h.outcome for h in dates.store.held.of(held.key)] == [Outcome.PUBLISHED]
    found = {c.result.name: c.result for c in dates.store.checks.of(held.key)}
    assert (found["rows_of_previous"].passed, found["rows_of_previous"].severity) == (False, "warn")
    assert dates.run(1, 1, JOINED).success
    assert rows(dates, "ndt") == sorted(FEWER)


def test_accepted_rows_are_not_loaded_anew_by_another_run(dates: Dates) -> None:
    held_date(dates)
    decide(dates, Decision.ACCEPT)
    assert dates.run(1, 1).success
    assert dates.done(1).count("load") == 2
    assert rows(dates, "raw_ndt") == sorted(FEWER)


@pytest.mark.parametrize("operation", ["dedup", "copy", "delete"])
def test_a_decision_whose_run_was_lost_is_carried_out_by_the_next(
    dates: Dates, operation: str
) -> None:
    held_date(dates)
    held = decide(dates, Decision.ACCEPT)
    dates.tables.hook = failing(1, operation=operation)
    assert not carry_out(dates, held).success
    dates.tables.hook = failing()
    assert carry_out(dates, held).success, "also where it is done"
    assert rows(dates, "raw_ndt") == sorted(FEWER)
    assert [h.outcome for h in dates.store.held.of(held.key)] == [Outcome.PUBLISHED]


@pytest.mark.parametrize("lost", [False, True])
def test_reject_leaves_no_trace(dates: Dates, lost: bool) -> None:
    run_id = held_date(dates)
    held = decide(dates, Decision.REJECT)
    if lost:
        dates.tables.hook = failing(1, operation="delete")
        assert not carry_out(dates, held).success
        dates.tables.hook = failing()
    assert carry_out(dates, held).success
    assert rows(dates, "tmp_ndt") == []
    assert rows(dates, "raw_ndt") == rows(dates, "ndt") == sorted(ALL)
    assert dates.state(1) is JobState.FAILED
    assert dates.error(1).startswith("rejected: raw_ndt.ndt7: by ada: a box died")
    assert [h.outcome for h in dates.store.held.of(held.key)] == [Outcome.REJECTED]
    # Who re-executes the run loads the rows again, and they are audited again.
    dates.run(1, 2, tags=resumed(run_id))
    assert len(dates.store.held.waiting()) == 1
    assert rows(dates, "raw_ndt") == sorted(ALL)


def test_a_re_execution_with_the_tag_publishes(dates: Dates) -> None:
    run_id = held_date(dates)
    one = {ACCEPT_TAG: "rows_of_previous"}
    assert not dates.run(1, 2, tags=resumed(run_id) | one).success
    assert rows(dates, "raw_ndt") == sorted(ALL)
    both = {ACCEPT_TAG: "rows_of_previous, ids_of_previous"}
    again = dates.run(1, 2, tags=resumed(run_id) | both)
    assert again.success
    assert dates.done(1).count("load") == 2
    assert rows(dates, "raw_ndt") == rows(dates, "ndt") == sorted(FEWER)
    [*_, held] = dates.store.held.of(job_key(dates.config.source(NDT7), day(1)))
    assert held.decided_by == f"the tag gardener/accept of Dagster run {again.run_id}"
    assert held.outcome is Outcome.PUBLISHED


def test_a_tag_that_names_no_audit_is_refused(dates: Dates) -> None:
    dates.parse(1)
    result = dates.run(1, 1, tags={ACCEPT_TAG: "rows"})
    assert not result.success
    assert dates.done(1) == []


def test_a_decision_about_rows_that_are_gone_does_nothing(dates: Dates) -> None:
    held_date(dates)
    held = decide(dates, Decision.ACCEPT)
    dates.parse(1, ids=FEWER[1:])
    dates.run(1, 1)
    assert not carry_out(dates, held).success
    assert rows(dates, "raw_ndt") == sorted(ALL)
    # As where tmp has expired.
    [*_, held] = dates.store.held.of(held.key)
    dates.parse(1, ids=FEWER)
    dates.run(1, 1)
    accepted = decide(dates, Decision.ACCEPT)
    del dates.tables.rows["tmp_ndt.ndt7$20240301"]
    result = carry_out(dates, accepted)
    assert (
        "the rows of raw_ndt.ndt7 that were held on 2024-03-01 are not there any more"
        in failure(result)
    )
    assert rows(dates, "raw_ndt") == sorted(ALL)
    assert dates.store.held.decided() == []


def test_a_join_that_loses_annotations_is_held(dates: Dates) -> None:
    dates.parse(1, ids=ALL)
    dates.tables.rows["raw_ndt.annotation2$20240301"] = list(ALL)
    assert dates.run(1, 1).success
    dates.tables.rows["raw_ndt.annotation2$20240301"] = ["a", "b", "c"]
    joins = dates.done(1).count("join")
    assert not dates.run(1, 1, JOINED).success
    assert dates.done(1).count("join") == joins
    assert dates.error(1).startswith(
        "held: annotated_of_previous: 30.0% of the rows annotated, 100.0% in the version before"
    )
    held = decide(dates, Decision.REJECT)
    assert held.table == "ndt.ndt7"
    assert carry_out(dates, held).success
    assert dates.done(1).count("join") == joins
    assert not dates.run(1, 1, JOINED).success
    accepted = decide(dates, Decision.ACCEPT)
    assert carry_out(dates, accepted).success
    assert dates.done(1).count("join") == joins + 1
    assert dates.state(1) is JobState.COMPLETE
    [change, *_] = dates.store.changes.of("ndt.ndt7", day(1))
    assert (change.rows, change.annotated) == (10, 3)
