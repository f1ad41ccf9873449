"""`json_lines` (DuckDB) and `rows` (row by row) accept the same rows and make the same of them."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gardener_dagster.local.bigquery.catalog.schema import Fields, column_list, from_json
from gardener_dagster.local.bigquery.loading import json_lines
from gardener_dagster.local.bigquery.loading.rows import RowError, RowReader

KINDS = ["STRING", "INTEGER", "FLOAT", "BOOLEAN", "DATE", "TIMESTAMP"]
RECORD: dict[str, Any] = {
    "name": "rec",
    "type": "RECORD",
    "fields": [
        {"name": "Int", "type": "INTEGER"},
        {"name": "list", "type": "STRING", "mode": "REPEATED"},
        {
            "name": "deep",
            "type": "RECORD",
            "mode": "REPEATED",
            "fields": [{"name": "x", "type": "DATE"}],
        },
    ],
}
FIELDS = from_json(
    [{"name": kind.lower(), "type": kind} for kind in KINDS]
    + [RECORD, RECORD | {"name": "recs", "mode": "REPEATED"}]
)

TEXTS = [
    "", "a", "é\u0000", "1", "-1", "+7", "01", "1.5", "1e3", ".5", "NaN", "inf", "Infinity", "true",
    "FALSE", "yes", "null", "2024-03-01", "2024-3-1", "2024-02-30", "24-03-01", "2024/03/01",
    "2024-03-01T10:00:00", "2024-03-01 10:00:00.123456789Z", "2024-03-01T10:00:00+02:00",
    "2024-03-01 10:00:00 UTC", "2024-03-01T25:00:00Z", "10:00:00", "9:8:7.5", "24:00:00", "10:00",
    "9223372036854775807", "9223372036854775808", " 1", "1 ", "0001-01-01T00:00:00Z", "9999-12-31",
]  # fmt: skip
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**64), 2**64),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.sampled_from(TEXTS),
)


def records(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = st.sampled_from(["Int", "INT", "list", "deep", "x", "nope"])
    return st.dictionaries(names, values, max_size=3)


VALUES = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=3), records(inner)), max_leaves=8
)
GOOD_RECORDS = st.fixed_dictionaries(
    {},
    optional={
        "Int": st.one_of(st.none(), st.integers(-9, 9)),
        "LIST": st.one_of(st.none(), st.lists(st.sampled_from(TEXTS), max_size=2)),
        "deep": st.lists(
            st.fixed_dictionaries({}, optional={"X": st.sampled_from(["2024-03-01", None])}),
            max_size=2,
        ),
    },
)
ROWS = st.dictionaries(
    st.sampled_from([field.name for field in FIELDS] + ["STRING", "Integer", "Rec", "nope"]),
    VALUES,
    max_size=4,
) | st.fixed_dictionaries(
    {},
    optional={
        "String": SCALARS,
        "INTEGER": st.integers(-9, 9),
        "rec": st.one_of(st.none(), GOOD_RECORDS),
        "Recs": st.one_of(st.none(), st.lists(GOOD_RECORDS, max_size=3)),
    },
)
USUAL_ROWS = st.fixed_dictionaries(
    {},
    optional={
        "string": st.text(max_size=5),
        "INTEGER": st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
        "Float": st.floats(allow_nan=False, allow_infinity=False),
        "boolean": st.booleans(),
        "recs": st.lists(
            st.fixed_dictionaries({"int": st.integers(-9, 9)}), min_size=1, max_size=2
        ),
    },
)


class Files:
    """Reads rows from files into a DuckDB table."""

    def __init__(self, database: duckdb.DuckDBPyConnection, folder: Path, fields: Fields) -> None:
        self._database, self._folder, self._fields = database, folder, fields

    def read(self, rows: list[Any], shape: Any = None) -> list[Any] | None:
        """Return the table's rows; None: the rows were refused, or left to `rows`."""
        path = self._folder / uuid.uuid4().hex
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        lines = json_lines.source([path])
        self._database.execute(f"CREATE OR REPLACE TABLE t ({column_list(self._fields)})")
        try:
            if shape is None:
                found = self._database.execute(json_lines.structures_query(lines)).fetchall()
                shape = json_lines.common_shape(text for (text,) in found)
            self._database.execute(
                json_lines.insert("t", lines, self._fields, shape, ignore_unknown=False)
            )
        except (json_lines.Unclear, duckdb.Error):
            return None
        finally:
            path.unlink()
        return self._database.execute("SELECT CAST(t AS VARCHAR) FROM t").fetchall()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Files]:
    with duckdb.connect(config={"threads": "1"}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield Files(connection, tmp_path_factory.mktemp("rows"), FIELDS)


@settings(max_examples=300, deadline=None)
@given(rows=st.lists(ROWS, min_size=1, max_size=3))
def test_both_accept_the_same_rows_and_make_the_same_of_them(files: Files, rows: list[Any]) -> None:
    reader = RowReader(FIELDS, ignore_unknown=False)
    quick = files.read(rows)
    try:
        read = [reader.read(json.dumps(row).encode()) for row in rows]
    except RowError:
        assert quick is None  # both refuse
        return
    slow = files.read(read, json_lines.shape_of(FIELDS))
    assert slow is not None  # json_lines accepts whatever rows writes
    assert quick is None or quick == slow


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(USUAL_ROWS, min_size=1, max_size=3))
def test_usual_rows_are_read_by_duckdb_alone(files: Files, rows: list[Any]) -> None:
    assert files.read(rows) is not None
