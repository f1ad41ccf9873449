"""Copy and delete: raw is replaced by tmp, and never by less than it should."""

import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest

from gardener_dagster.warehouse.errors import RefusedCopy
from gardener_dagster.warehouse.objects import LoadSource

if TYPE_CHECKING:
    from tests.gardener_dagster.warehouse.operations.conftest import Lab

DATE = dt.date(2024, 3, 1)
NOTHING = LoadSource(uris=(), objects=0, size=0)


def test_raw_becomes_what_tmp_is(lab: "Lab", rows: Any) -> None:
    lab.publish([rows.ndt7("old"), rows.ndt7("older")])
    other = dt.date(2024, 3, 2)
    lab.publish([rows.ndt7("other", date=other)], date=other)
    lab.load([rows.ndt7("new")])
    tables = lab.tables()
    result = lab.warehouse().copy(tables, lab.context(), parse_had_no_files=False)
    assert (result.rows, result.rows_before) == (1, 2)
    assert [job.kind for job in result.bq_jobs] == ["copy"]
    assert result.bytes_billed == 0
    assert lab.ids(tables.raw_partition(DATE)) == ["new"]
    assert lab.ids(tables.raw_partition(other)) == ["other"]


def test_d20_an_empty_tmp_does_not_replace_raw(lab: "Lab", rows: Any) -> None:
    raw = lab.publish([rows.ndt7("x")])
    lab.warehouse().load(lab.tables(), NOTHING, lab.context())
    with pytest.raises(RefusedCopy, match=r"had files, but no rows\), so the 1 rows in raw stay"):
        lab.warehouse().copy(lab.tables(), lab.context(), parse_had_no_files=False)
    assert lab.ids(raw) == ["x"]


def test_d20_a_missing_tmp_partition_does_not_replace_raw(lab: "Lab", rows: Any) -> None:
    raw = lab.publish([rows.ndt7("x")])
    with pytest.raises(RefusedCopy):
        lab.warehouse().copy(lab.tables(), lab.context(), parse_had_no_files=False)
    assert lab.ids(raw) == ["x"]


def test_d20_a_missing_tmp_table_does_not_replace_raw(lab: "Lab", rows: Any) -> None:
    raw = lab.publish([rows.ndt7("x")])
    lab.client.delete_table(lab.tables().tmp_partition(DATE).table_id)
    with pytest.raises(RefusedCopy):
        lab.warehouse().copy(lab.tables(), lab.context(), parse_had_no_files=False)
    assert lab.ids(raw) == ["x"]


def test_d20_no_files_do_not_empty_raw_without_being_told_to(lab: "Lab", rows: Any) -> None:
    raw = lab.publish([rows.ndt7("x")])
    lab.warehouse().load(lab.tables(), NOTHING, lab.context())
    with pytest.raises(RefusedCopy, match="with the tag gardener/may_empty: true"):
        lab.warehouse().copy(lab.tables(), lab.context(), parse_had_no_files=True)
    assert lab.ids(raw) == ["x"]


def test_raw_is_emptied_when_told_to(lab: "Lab", rows: Any) -> None:
    raw = lab.publish([rows.ndt7("x")])
    lab.warehouse().load(lab.tables(), NOTHING, lab.context())
    tables = lab.tables()
    result = lab.warehouse().copy(tables, lab.context(), parse_had_no_files=True, may_empty=True)
    assert (result.rows, result.rows_before) == (0, 1)
    assert lab.ids(raw) == []


def test_a_date_with_no_files_runs_through(lab: "Lab") -> None:
    tables, ctx, warehouse = lab.tables(), lab.context(), lab.warehouse()
    warehouse.load(tables, NOTHING, ctx)
    assert warehouse.dedup(tables, ("id",), ctx).rows == 0
    assert warehouse.copy(tables, ctx, parse_had_no_files=True).rows == 0
    warehouse.delete(tables, ctx)
    result = warehouse.join(tables, ctx, annotations_known_empty=True)
    assert result.rows == 0
    assert result.skipped


def test_d36_a_date_whose_archives_hold_no_tests_completes_with_a_warning(lab: "Lab") -> None:
    """The parse had files, their objects have no rows, and raw has nothing to protect."""
    tables, ctx, warehouse = lab.tables(), lab.context(), lab.warehouse()
    result = warehouse.load(tables, lab.source({"a": [], "b": []}), ctx)
    assert (result.rows, result.objects) == (0, 2)
    assert warehouse.dedup(tables, ("id",), ctx).rows == 0
    copied = warehouse.copy(tables, ctx, parse_had_no_files=False, rows_loaded=result.rows)
    assert (copied.rows, copied.rows_before) == (0, 0)
    assert copied.warning == "the parse had files, but no rows: the date has no rows"
    warehouse.delete(tables, ctx)
    assert warehouse.join(tables, ctx, annotations_known_empty=False).skipped


def test_d36_raw_may_be_emptied_though_the_parse_had_files(lab: "Lab", rows: Any) -> None:
    raw = lab.publish([rows.ndt7("x")])
    tables, ctx = lab.tables(), lab.context()
    lab.warehouse().load(tables, lab.source({"b": []}), ctx)
    with pytest.raises(RefusedCopy, match="with the tag gardener/may_empty: true"):
        lab.warehouse().copy(tables, ctx, parse_had_no_files=False, rows_loaded=0)
    result = lab.warehouse().copy(
        tables, ctx, parse_had_no_files=False, may_empty=True, rows_loaded=0
    )
    assert (result.rows, result.rows_before) == (0, 1)
    assert result.warning
    assert lab.ids(raw) == []


@pytest.mark.parametrize("may_empty", [False, True])
def test_rows_that_were_loaded_and_are_gone_are_not_taken_for_an_empty_date(
    lab: "Lab", rows: Any, may_empty: bool
) -> None:
    """The tmp partition expired before it was copied; raw has nothing of the date yet."""
    tables = lab.tables()
    lab.load([rows.ndt7("x")])
    lab.warehouse().delete(tables, lab.context())
    with pytest.raises(RefusedCopy, match=r"1 were loaded and not copied.*materialize it again"):
        lab.warehouse().copy(
            tables, lab.context(), parse_had_no_files=False, rows_loaded=1, may_empty=may_empty
        )


def test_the_tmp_partition_is_deleted_and_gone_already_is_fine(lab: "Lab", rows: Any) -> None:
    partition = lab.load([rows.ndt7("x")])
    other = lab.load([rows.ndt7("y", date=dt.date(2024, 3, 2))], date=dt.date(2024, 3, 2))
    assert lab.warehouse().delete(lab.tables(), lab.context()).rows == 0
    assert lab.rows(partition) == []
    assert lab.ids(other) == ["y"]
    lab.warehouse().delete(lab.tables(), lab.context())
    lab.client.delete_table(partition.table_id)
    assert not lab.warehouse().delete(lab.tables(), lab.context()).existed


def test_d22_what_a_failed_run_left_in_tmp_goes_in_time(lab: "Lab", rows: Any) -> None:
    leftover = lab.load([rows.ndt7("x")])
    now = dt.datetime.now(dt.UTC)
    early = lab.warehouse(now=lambda: now + dt.timedelta(days=6))
    assert early.expire_tmp(lab.tables(), lab.context()) == ()
    assert lab.ids(leftover) == ["x"]
    late = lab.warehouse(now=lambda: now + dt.timedelta(days=8))
    [expired] = late.expire_tmp(lab.tables(), lab.context())
    assert expired.partition == leftover
    assert lab.rows(leftover) == []


def test_d22_an_old_date_just_loaded_is_no_leftover(lab: "Lab", rows: Any) -> None:
    date = dt.date(2015, 11, 19)
    partition = lab.load([rows.ndt7("x", date=date)], date=date)
    assert lab.warehouse().expire_tmp(lab.tables(), lab.context()) == ()
    assert lab.ids(partition) == ["x"]
