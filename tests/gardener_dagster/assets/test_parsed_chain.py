"""The step ``parse`` of a backfill of the whole chain: it is told of a date with its tables."""

import datetime as dt

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from parse_runs import DAYS, NDT7, At, materialized, run_parse
from simulated import Parser

from gardener_api.jobs.job import JobState
from gardener_api.store.store import JobStore
from gardener_dagster.assets import parsed

TMP = dg.AssetKey(["tmp_ndt", "ndt7"])


def backfill_of(instance: dg.DagsterInstance, *keys: dg.AssetKey) -> None:
    instance.add_backfill(
        PartitionBackfill(
            backfill_id="b",
            status=BulkActionStatus.REQUESTED,
            from_failure=False,
            tags={},
            backfill_timestamp=0.0,
            asset_selection=list(keys),
        )
    )


@pytest.fixture
def dates_at_looks(instance: dg.DagsterInstance, store: JobStore, when_polling: At) -> list[int]:
    """How many dates Dagster has at each look; the tables of the first are made at the third."""
    counts: list[int] = []

    def look() -> None:
        counts.append(len(materialized(instance, NDT7)))
        parsed = [item.job for item in store.parsed_jobs()]
        if len(counts) > 2 and len(parsed) == len(DAYS):
            now = dt.datetime.now(dt.UTC)
            store.stage(parsed[0].key, JobState.LOADING, run_id="t", now=now)
            store.stage(parsed[0].key, JobState.COMPLETE, run_id="t", now=now)
            for job in parsed[1:]:
                store.fail_stage(job.key, "no quota", run_id="t", number=job.number, now=now)

    when_polling(look, always=True)
    return counts


@pytest.mark.usefixtures("archives")
def test_each_date_is_reported_once_its_tables_have_ended_well_or_not(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    parser: Parser,
    dates_at_looks: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parsed, "SETTLE", dt.timedelta())
    backfill_of(instance, NDT7, TMP)
    with parser:
        assert run_parse(defs, instance, [NDT7], DAYS[0], DAYS[-1], backfill="b").success
    assert dates_at_looks[:3] == [0, 0, 0]
    assert len(materialized(instance, NDT7)) == len(DAYS)


@pytest.mark.usefixtures("archives")
def test_a_date_whose_tables_take_too_long_is_reported_without_them(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    store: JobStore,
    parser: Parser,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parsed, "CHAIN_TIMEOUT", dt.timedelta())
    backfill_of(instance, NDT7, TMP)
    with parser:
        assert run_parse(defs, instance, [NDT7], DAYS[0], DAYS[-1], backfill="b").success
    assert len(store.parsed_jobs()) == len(DAYS)  # nobody has made their tables


@pytest.mark.usefixtures("archives")
def test_a_backfill_of_parsed_alone_waits_for_no_tables(
    defs: dg.Definitions, instance: dg.DagsterInstance, store: JobStore, parser: Parser
) -> None:
    backfill_of(instance, NDT7)
    with parser:
        assert run_parse(defs, instance, [NDT7], DAYS[0], DAYS[-1], backfill="b").success
    assert len(store.parsed_jobs()) == len(DAYS)
