"""Which joins are due, as a pure plan."""

import datetime as dt
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from planned_jobs import CONFIG, GATHER, NOW, day, make_job, spans

from gardener_api.jobs.job import Job, JobKey, JobState
from gardener_api.store.tables.table_versions import DueJoin, JoinInputs
from gardener_dagster.planning.due_joins import JoinRun, joins_to_start


def due_join(number: int, *, age: dt.timedelta | None = None) -> DueJoin:
    since = None if age is None else NOW - age
    return DueJoin(date=day(number), inputs=JoinInputs(1, 1, 1), replaces=0, since=since)


def joins(
    *items: DueJoin,
    latest: Iterable[Job] = (),
    left_out: Collection[dt.date] = (),
    backfills: Mapping[dt.date, str] | None = None,
) -> list[JoinRun]:
    by_key: dict[JobKey, Job] = {job.key: job for job in latest}
    return joins_to_start(
        CONFIG,
        CONFIG.source("ndt/ndt7"),
        items,
        latest=by_key,
        left_out=frozenset(left_out),
        backfills=backfills or {},
        now=NOW,
    )


def test_joins_of_consecutive_dates_are_one_run() -> None:
    assert spans(joins(*map(due_join, (1, 2, 3, 4, 5, 8)))) == [(1, 4), (5, 5), (8, 8)]


def test_joins_wait_for_rows_and_annotations_that_are_on_their_way() -> None:
    for name, number in (("ndt/ndt7", 2), ("ndt/annotation2", 2), ("ndt/annotation2", 1)):
        for state in (JobState.QUEUED, JobState.COPYING):
            assert joins(due_join(2), latest=[make_job(number, name, state=state)]) == []
    ended = make_job(2, "ndt/ndt7", state=JobState.JOINING)
    assert spans(joins(due_join(2), latest=[ended])) == [(2, 2)]


def test_joins_gather_while_a_neighbour_is_on_its_way() -> None:
    coming = make_job(3, "ndt/ndt7", state=JobState.LOADING)
    young, old = dt.timedelta(seconds=1), GATHER
    assert joins(due_join(2, age=young), latest=[coming]) == []
    assert spans(joins(due_join(2, age=young))) == [(2, 2)]
    assert spans(joins(due_join(2, age=old), latest=[coming])) == [(2, 2)]


def test_joins_of_one_run_are_of_one_backfill() -> None:
    runs = joins(*map(due_join, (1, 2, 3)), backfills={day(1): "b", day(2): "b"})
    assert [(run.backfill_id, len(run.due)) for run in runs] == [("b", 2), (None, 1)]


def test_d27_joins_of_dates_that_are_no_partitions_are_left_alone() -> None:
    assert spans(joins(due_join(-1), due_join(0), due_join(60), due_join(61))) == [(0, 0)]


def test_joins_that_are_left_out_split_a_range() -> None:
    assert spans(joins(*map(due_join, (1, 2, 3)), left_out={day(2)})) == [(1, 1), (3, 3)]


def test_a_run_key_of_joins_names_all_versions() -> None:
    [run] = joins(due_join(1), due_join(2))
    newer = replace(run.due[1], inputs=JoinInputs(2, 1, 1))
    assert replace(run, due=(run.due[0], newer)).run_key != run.run_key
    assert replace(run, due=run.due[:1]).run_key.startswith("ndt.ndt7$20240102~raw1.")
