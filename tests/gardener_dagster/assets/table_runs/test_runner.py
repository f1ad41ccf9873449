"""Runs of many dates through the op of a source's tables, on tables in memory."""

import datetime as dt
import re
from dataclasses import replace
from itertools import groupby

import dagster as dg
import pytest
from chain import failure, resumed
from dagster import DagsterEventType
from fake_warehouse import FakeTables
from simulated import Parser
from table_dates import (
    JOINED,
    RAW,
    TMP,
    Dates,
    checks,
    day,
    expected,
    failing,
    materialized,
)

from gardener_api.jobs.job import JobState
from gardener_dagster.assets.keys import ACCEPT_TAG, BACKFILL_TAG
from gardener_dagster.assets.table_runs import runner
from gardener_dagster.warehouse.names import JobContext, SourceTables
from gardener_dagster.warehouse.results import DedupResult


def test_each_date_of_a_range_goes_through_and_is_reported(dates: Dates) -> None:
    dates.parse(*range(1, 7))
    result = dates.run(1, 6)
    assert result.success
    assert materialized(result) == expected(*range(1, 7))
    for n in range(1, 7):
        assert dates.state(n) is JobState.COMPLETE
        assert dates.done(n) == ["load", "dedup", "copy", "delete", "join"]
        assert dates.holder("tmp_ndt.ndt7", n) is None
    made = result.get_asset_materialization_events()
    raw = [e.materialization for e in made if e.asset_key == RAW]
    assert {m.metadata["dagster/row_count"].value for m in raw} == {2}


def test_dates_at_once_bounds_the_dates_under_way(dates: Dates) -> None:
    dates.parse(*range(1, 9))
    under_way: set[dt.date] = set()
    most = 0

    def hook(name: str, date: dt.date, context: JobContext) -> None:
        nonlocal most
        under_way.add(date) if name == "load" else None
        most = max(most, len(under_way))
        under_way.discard(date) if name == "join" else None

    dates.tables.hook = hook
    assert dates.run(1, 8).success
    assert 1 < most <= dates.config.tables.dates_at_once == 4


def test_failed_dates_stop_no_other_and_are_named(dates: Dates) -> None:
    dates.parse(*range(1, 6))
    dates.tables.hook = failing(2, 4)
    result = dates.run(1, 5)
    assert materialized(result) == expected(1, 3, 5) | expected(2, 4, tables=("tmp_ndt",))
    assert failure(result).splitlines() == [
        "2 dates failed: 2024-03-02: copy t: no. What to do: mend it, then re-execute the run from"
        " its failure: what was made is kept",
        "2024-03-04: copy t: no",
    ]
    assert [dates.state(n) is JobState.FAILED for n in range(1, 6)] == [
        *(False, True, False, True, False)
    ]
    assert dates.error(2) == "copy t: no. What to do: mend it."


def test_dagster_is_told_of_all_tables_of_a_date_together_and_of_a_failed_one_at_the_end(
    dates: Dates,
) -> None:
    dates.parse(*range(1, 6))
    dates.tables.hook = failing(2)
    made = dates.run(1, 5).get_asset_materialization_events()
    by_date = [
        (date, [str(event.asset_key and event.asset_key.path[0]) for event in events])
        for date, events in groupby(made, lambda event: event.partition)
    ]
    assert by_date.pop() == ("2024-03-02", ["tmp_ndt"])
    assert [tables for _, tables in by_date] == [["tmp_ndt", "raw_ndt", "ndt"]] * 4


def test_a_resumed_run_does_only_what_is_not_done(dates: Dates) -> None:
    dates.parse(1, 2, 3)
    dates.tables.hook = failing(2)
    failed = dates.run(1, 3)
    dates.tables.hook = failing()
    dates.tables.log.clear()
    again = dates.run(1, 3, tags=resumed(failed.run_id))
    assert again.success
    assert dates.tables.log == [(name, day(2)) for name in ("dedup", "copy", "delete", "join")]
    assert materialized(again) == expected(2, tables=("raw_ndt", "ndt"))
    assert dates.state(2) is JobState.COMPLETE


def test_a_new_run_makes_its_dates_anew(dates: Dates) -> None:
    dates.parse(1, 2)
    first = dates.run(1, 2)
    dates.tables.log.clear()
    assert materialized(dates.run(1, 2)) == expected(1, 2)
    # A person who re-executes the run as a whole wants it anew, too.
    whole = {
        "dagster/root_run_id": first.run_id,
        "dagster/parent_run_id": first.run_id,
        BACKFILL_TAG: "b",
    }
    assert materialized(dates.run(1, 2, tags=whole)) == expected(1, 2)
    assert dates.done(1) == ["load", "dedup", "copy", "delete", "join"] * 2


def test_d45_what_the_daemon_asks_for_again_in_a_backfill_is_found_done(dates: Dates) -> None:
    dates.parse(1, 2)
    tags = {BACKFILL_TAG: "b"}
    assert dates.run(1, 2, tags=tags).success
    dates.tables.log.clear()
    for keys in ((TMP,), (RAW,), (JOINED,), (TMP, RAW, JOINED)):
        again = dates.run(1, 2, *keys, tags=tags)
        assert again.success
        assert materialized(again) == set()
    assert dates.tables.log == []
    assert dates.state(1) is JobState.COMPLETE


def test_a_date_parsed_again_is_made_again_in_the_same_backfill(dates: Dates) -> None:
    dates.parse(1)
    assert dates.run(1, 1, tags={BACKFILL_TAG: "b"}).success
    dates.parse(1, ids=("z",))
    assert dates.run(1, 1, tags={BACKFILL_TAG: "b", ACCEPT_TAG: "true"}).success
    assert dates.tables.rows["ndt.ndt7$20240301"] == ["z"]


def test_what_the_store_knows_as_made_and_dagster_does_not_is_reported(
    dates: Dates, monkeypatch: pytest.MonkeyPatch
) -> None:
    dates.parse(1, 2)
    with monkeypatch.context() as patch:
        patch.setattr(runner.TablesRun, "_materialization", lambda *_: iter(()))
        lost = dates.run(1, 2, tags={BACKFILL_TAG: "b"})
    assert materialized(lost) == set()
    dates.tables.log.clear()
    again = dates.run(1, 2, tags={BACKFILL_TAG: "b"})
    assert materialized(again) == expected(1, 2)
    assert dates.tables.log == []


def test_a_check_sums_up_the_dates_of_its_run_and_the_store_has_each(dates: Dates) -> None:
    dates.parse(1, 2, 3)
    dates.tables.rows["raw_ndt.annotation2$20240302"] = ["x", "y"]
    found = checks(dates.run(1, 3))
    assert found["unique_keys"].passed
    assert found["unique_keys"].description == "all 3 dates pass: 2024-03-01 to 2024-03-03"
    annotated = found["annotated"]
    lines = str(annotated.description).splitlines()
    assert lines[0] == "2 of 3 dates do not pass:"
    assert [line[:10] for line in lines[1:]] == ["2024-03-01", "2024-03-03"]
    assert annotated.severity is dg.AssetCheckSeverity.WARN
    named = annotated.metadata["failing dates"].value
    assert isinstance(named, list)
    assert [entry["date"] for entry in named] == ["2024-03-01", "2024-03-03"]
    failing_ = dates.store.checks.failing(day(1), day(3))
    assert {key.date for key in failing_} == {day(1), day(3)}


def test_a_date_whose_keys_are_not_unique_is_not_joined(
    dates: Dates, monkeypatch: pytest.MonkeyPatch
) -> None:
    dates.parse(1, 2)
    dedup = FakeTables.dedup

    def doubled(
        self: FakeTables, tables: SourceTables, key: object, ctx: JobContext
    ) -> DedupResult:
        result = dedup(self, tables, key, ctx)  # type: ignore[arg-type]
        if ctx.date == day(2):
            self.rows["tmp_ndt.ndt7$20240302"] *= 2
        return replace(result, keys=self.compare_keys(tables, ctx))

    with monkeypatch.context() as patch:
        patch.setattr(FakeTables, "dedup", doubled)
        result = dates.run(1, 2)
    assert "join" in dates.done(1)
    assert "join" not in dates.done(2)
    assert "check unique_keys of raw_ndt.ndt7$20240302: 2 of 4 rows share" in failure(result)
    assert not checks(result)["unique_keys"].passed
    assert dates.state(2) is JobState.FAILED
    # Nor by another run, until raw is made again.
    assert "check unique_keys" in failure(dates.run(2, 2, JOINED))
    assert dates.run(2, 2).success
    assert checks(dates.run(1, 2))["unique_keys"].passed


def test_d31_raw_run_again_after_its_delete_step_succeeds(dates: Dates) -> None:
    dates.parse(1, 2)
    assert dates.run(1, 2).success
    again = dates.run(1, 2, RAW)
    assert again.success
    assert materialized(again) == expected(1, 2, tables=("raw_ndt",))
    assert dates.tables.rows["raw_ndt.ndt7$20240301"] == ["x", "y"]


def test_d31_a_run_that_died_amid_its_delete_step_goes_on(dates: Dates) -> None:
    dates.parse(1, 2)
    dates.tables.hook = failing(1, operation="delete")
    failed = dates.run(1, 2)
    dates.tables.hook = failing()
    assert dates.run(1, 2, tags=resumed(failed.run_id)).success
    assert dates.done(1) == ["load", "dedup", "copy", "delete", "join"]
    assert "tmp_ndt.ndt7$20240301" not in dates.tables.rows
    assert dates.state(1) is JobState.COMPLETE


def test_the_log_tells_how_far_the_run_is(dates: Dates) -> None:
    dates.parse(1, 2)
    dates.tables.hook = failing(2)
    result = dates.run(1, 2)
    logged = " ".join(e.message for e in dates.instance.all_logs(result.run_id))
    assert "(2 of 2 dates, 1 failed)" in logged
    done = "load 3 rows, dedup 2 rows, copy 2 rows, delete 0 rows, join 2 rows"
    assert re.search(rf"2024-03-01: done \(\d of 2 dates, \d failed\): {done}", logged)
    assert re.search(r"2024-03-02: failed \(.*\): load 3 rows, dedup 2 rows: copy t: no", logged)
    assert len(result.get_step_failure_events()) == 1
    assert not dates.instance.all_logs(result.run_id, of_type=DagsterEventType.STEP_SKIPPED)


def test_d44_a_run_over_the_whole_chain_of_one_date(dates: Dates) -> None:
    dates.tables.parsed["ndt7", day(1)] = dates.tables.parsed["annotation2", day(1)] = ["x", "y"]
    keys = [dg.AssetKey(["parsed", "ndt", datatype]) for datatype in ("ndt7", "annotation2")]
    keys += [dg.AssetKey([dataset, "annotation2"]) for dataset in ("tmp_ndt", "raw_ndt")]
    with Parser(dates.store):
        result = dates.run(1, 1, TMP, RAW, JOINED, *keys)
    assert result.success
    assert {key for key, _ in materialized(result)} == {
        key.to_user_string() for key in [TMP, RAW, JOINED, *keys]
    }
    assert dates.tables.rows["ndt.ndt7$20240301"] == ["x", "y"]
    # Again in the same backfill, or from its failure: each step has what the one before it made.
    assert dates.run(1, 1, TMP, RAW, JOINED, *keys[2:], tags=resumed(result.run_id)).success
    assert dates.done(1).count("load") == 2
