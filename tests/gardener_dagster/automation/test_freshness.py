import datetime as dt

import dagster as dg
import pytest
from job_requests import request_for

from gardener_api.config import GardenerConfig
from gardener_api.jobs.job import Priority
from gardener_api.store.store import JobStore
from gardener_dagster.automation.freshness import KEY, due_date
from gardener_dagster.planning.due_tables import job_key

NOW = dt.datetime.now(dt.UTC)
DUE = due_date(NOW)


@pytest.mark.parametrize(
    ("now", "due"),
    [
        ("2024-03-02T19:59:59+00:00", "2024-02-29"),
        ("2024-03-02T20:00:00+00:00", "2024-03-01"),
        ("2024-03-02T23:59:59+00:00", "2024-03-01"),
        ("2024-03-03T00:00:00+00:00", "2024-03-01"),
        ("2024-03-02T15:30:00-05:00", "2024-03-01"),
    ],
)
def test_due(now: str, due: str) -> None:
    assert due_date(dt.datetime.fromisoformat(now)).isoformat() == due


def evaluate(
    defs: dg.Definitions, instance: dg.DagsterInstance
) -> dict[str, dg.AssetCheckEvaluation]:
    """Run the job; what each check said."""
    result = defs.resolve_job_def("freshness").execute_in_process(instance=instance)
    assert result.success
    return {e.check_name: e for e in result.get_asset_check_evaluations()}


def test_each_source_says_how_new_it_is(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    store: JobStore,
    config: GardenerConfig,
) -> None:
    fresh, ndt7 = "ndt_annotation2", config.source("ndt/ndt7")
    for days in (0, 1, 5):
        store.tables.record_partition(
            "raw_ndt.annotation2", DUE - dt.timedelta(days), rows=1, run_id="t", now=NOW
        )
    # Raw alone does not make a date complete that is joined too; nor does a backfill of old ones.
    store.tables.record_partition("raw_ndt.ndt7", DUE, rows=1, run_id="t", now=NOW)
    old = DUE - dt.timedelta(3)
    inputs = store.tables.join_inputs("raw_ndt.ndt7", "raw_ndt.annotation2", old)
    store.tables.record_join("ndt.ndt7", old, inputs, rows=1, run_id="t", now=NOW)
    said = evaluate(defs, instance)
    assert set(said) == {fresh, "ndt_ndt7"}
    assert said[fresh].passed
    assert said[fresh].description == f"the newest complete date is {DUE}"
    assert not said["ndt_ndt7"].passed
    assert said["ndt_ndt7"].description == (
        f"{DUE} is not complete, nobody asked for it: look at the schedule daily;"
        f" the newest complete date is {old}"
    )
    assert said["ndt_ndt7"].asset_key == KEY
    assert [said[name].metadata["days behind"].value for name in (fresh, "ndt_ndt7")] == [0, 3]
    ask = request_for(job_key(ndt7, DUE), priority=Priority.DAILY, daily=True)
    store.enqueue([ask], now=NOW)
    again = evaluate(defs, instance)["ndt_ndt7"]
    assert again.description is not None
    assert "is not complete, its job is queued: see whether the sidecar" in again.description


def test_no_date_was_ever_complete(defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
    said = evaluate(defs, instance)
    assert not any(evaluation.passed for evaluation in said.values())
    assert (said["ndt_ndt7"].description or "").endswith("; no date was ever complete")


def test_runs_of_tables_do_not_look_at_it(defs: dg.Definitions) -> None:
    graph = defs.get_repository_def().asset_graph
    tables = dg.AssetKey(["raw_ndt", "ndt7"]), dg.AssetKey(["ndt", "ndt7"])
    checks = {key.asset_key for key in graph.get_check_keys_for_assets(set(tables))}
    assert checks == set(tables)
