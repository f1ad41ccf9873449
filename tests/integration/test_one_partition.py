import datetime as dt
import itertools

from stack_client import StackClient

from gardener_dagster.planning.due_tables import job_key

CHAIN = [["tmp_ndt", "annotation2"], ["raw_ndt", "annotation2"]]


def test_two_runs_of_one_partition_do_not_interleave(
    stack: StackClient, backfills: dict[str, str]
) -> None:
    date = dt.date(2024, 3, 1)
    key = job_key(stack.config.source("ndt/annotation2"), date)
    before = len(stack.store.tables.operations(key))
    ids = [stack.dagster.backfill(CHAIN, [date]) for _ in range(2)]
    assert [stack.wait_for_backfill(i) for i in ids] == ["COMPLETED_SUCCESS"] * 2
    done = stack.store.tables.operations(key)[before:]
    runs = [list(group) for _, group in itertools.groupby(done, key=lambda o: o.run_id)]
    steps = ["load", "dedup", "copy", "delete"]
    assert [[o.operation for o in run] for run in runs] == [steps, steps]
