"""Two versions of partitions compared, by keys and by columns."""

import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest

from gardener_dagster.warehouse.engine import Engine, Settings
from gardener_dagster.warehouse.errors import WarehouseError
from gardener_dagster.warehouse.operations.diff import Comparison
from gardener_dagster.warehouse.results import ColumnDiff, KeyDiff, TableVersion

if TYPE_CHECKING:
    from tests.gardener_dagster.warehouse.operations.conftest import Lab

DATE = dt.date(2024, 3, 1)
NEXT = dt.date(2024, 3, 2)


def compare(lab: "Lab", *, as_of: dt.datetime | None = None, **changed: Any) -> Comparison:
    """Raw against tmp, of two dates."""
    tables = lab.tables()
    values: dict[str, Any] = {
        "engine": Engine(lab.faulty, Settings(priority="INTERACTIVE")),
        "source": tables,
        "key": ("id",),
        "before": TableVersion(table=f"{tables.raw}.ndt7", as_of=as_of),
        "after": TableVersion(table=f"{tables.tmp}.ndt7"),
        "first": DATE,
        "last": NEXT,
        "run_id": "test",
    }
    return Comparison(**values | changed)


def fill(lab: "Lab", rows: Any) -> None:
    lab.publish([rows.ndt7(id) for id in ("a", "b", "c", "", None)])
    lab.publish([rows.ndt7("z", date=NEXT)], date=NEXT)
    lab.load([rows.ndt7("b"), rows.ndt7("c", throughput=2.0), rows.ndt7("d"), rows.ndt7("d")])
    lab.load([rows.ndt7("z", date=NEXT)], date=NEXT)


def test_rows_and_keys_are_counted_for_each_date(lab: "Lab", rows: Any) -> None:
    fill(lab, rows)
    found, job = compare(lab, last=dt.date(2024, 3, 3)).keys()
    assert found == [
        KeyDiff(
            date=DATE, rows_before=5, rows_after=4, keyless_before=2, in_both=2, added=1, removed=1,
        ),
        KeyDiff(date=NEXT, rows_before=1, rows_after=1, in_both=1),
        KeyDiff(date=dt.date(2024, 3, 3)),
    ]  # fmt: skip
    assert [each.same for each in found] == [False, True, True]
    assert job.kind == "query"


def test_rows_that_both_have_are_compared_by_columns(lab: "Lab", rows: Any) -> None:
    fill(lab, rows)
    by_date, examples, jobs = compare(lab).columns(["*"])
    assert by_date == [
        ColumnDiff(date=DATE, compared=2, differing=1, columns={"a": 1}),
        ColumnDiff(date=NEXT, compared=1, columns={}),
    ]
    [example] = examples
    assert (example.date, example.key) == (DATE, ("c",))
    before, after = example.columns["a"]
    assert '"MeanThroughputMbps":1' in before
    assert '"MeanThroughputMbps":2' in after
    assert len(jobs) == 2


def test_only_named_columns_are_compared(lab: "Lab", rows: Any) -> None:
    fill(lab, rows)
    assert [d.differing for d in compare(lab).columns(["raw"])[0]] == [0, 0]
    by_date, examples, _ = compare(lab).columns(["a.MeanThroughputMbps", "raw"])
    assert by_date[0].columns == {"a.MeanThroughputMbps": 1}
    assert len(examples) == 1


def test_a_key_of_several_columns(lab: "Lab", rows: Any) -> None:
    fill(lab, rows)
    key = ("id", "parser.Filename")
    assert compare(lab, key=key).keys()[0] == compare(lab).keys()[0]
    assert compare(lab, key=key).columns(["a"])[1][0].key == ("c", "f.json.gz")


def test_a_table_or_column_that_is_missing_is_named(lab: "Lab", rows: Any) -> None:
    fill(lab, rows)
    with pytest.raises(WarehouseError, match=r"nowhere\.ndt7: there is no such table"):
        compare(lab, before=TableVersion(table="nowhere.ndt7")).keys()
    with pytest.raises(WarehouseError, match=r"there is no column 'b'.*has id, date, parser, a"):
        compare(lab).columns(["b"])
    with pytest.raises(ValueError, match="not letters, digits and underscores"):
        compare(lab).columns(["a.`x`"])


def test_a_bigquery_without_time_travel_says_so(lab: "Lab", rows: Any) -> None:
    fill(lab, rows)
    then = dt.datetime(2024, 3, 1, tzinfo=dt.UTC)
    with pytest.raises(WarehouseError, match="this BigQuery has no time travel"):
        compare(lab, as_of=then).keys()


def test_a_past_version_is_copied_first_and_read_at_one_time_in_each_statement(lab: "Lab") -> None:
    then = dt.datetime(2024, 3, 1, tzinfo=dt.UTC)
    copy, rest = compare(lab, as_of=then)._versions(["a"]).split(";")
    assert copy.startswith("CREATE TEMP TABLE before_version AS")
    assert "FOR SYSTEM_TIME AS OF @as_of\n  WHERE t.date BETWEEN @first AND @last" in copy
    assert "SYSTEM_TIME" not in rest
