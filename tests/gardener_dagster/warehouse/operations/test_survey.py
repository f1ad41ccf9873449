"""What audits ask of the tables, by one query on key columns each."""

import datetime as dt
from typing import TYPE_CHECKING, Any

from gardener_dagster.warehouse.names import Step
from gardener_dagster.warehouse.results import KeyComparison

if TYPE_CHECKING:
    from tests.gardener_dagster.warehouse.operations.conftest import Lab

DATE = dt.date(2024, 3, 1)


def compared(lab: "Lab", *key: str) -> dict[str, int]:
    tables, ctx = lab.tables(), lab.context()
    step = Step(operation="any", tables=tables, ctx=ctx, partition=tables.tmp_partition(DATE))
    found = lab.warehouse().survey.compare_keys(step, key or ("id",))
    names = set(KeyComparison.__dataclass_fields__) - {"bq_jobs"}
    assert len(found.bq_jobs) == 1
    return {name: getattr(found, name) for name in names if getattr(found, name)}


def stage(lab: "Lab", *made: Any) -> None:
    lab.wipe()
    lab.load(list(made))


def test_a_first_version_is_all_new(lab: "Lab", rows: Any) -> None:
    stage(lab, rows.ndt7("x"), rows.ndt7("y"), rows.ndt7(None), rows.ndt7(""))
    assert compared(lab) == {"rows": 4, "keyless": 2, "ids": 2, "added": 2}


def test_ids_are_added_removed_and_kept(lab: "Lab", rows: Any) -> None:
    lab.publish([rows.ndt7("x"), rows.ndt7("y"), rows.ndt7("z"), rows.ndt7(None)])
    stage(lab, rows.ndt7("x"), rows.ndt7("x"), rows.ndt7("new"), rows.ndt7("newer"))
    assert compared(lab) == {
        "rows": 4, "duplicates": 1, "ids": 3, "published": 4, "published_keyless": 1,
        "published_ids": 3, "added": 2, "removed": 2, "kept": 1,
    }  # fmt: skip


def test_ids_are_counted_beside_a_finer_key(lab: "Lab", rows: Any) -> None:
    lab.publish([rows.ndt7("x", filename="a"), rows.ndt7("y", filename="a")])
    stage(lab, rows.ndt7("x", filename="a"), rows.ndt7("x", filename="b"))
    assert compared(lab, "parser.Filename", "id") == {
        "rows": 2, "ids": 1, "published": 2, "published_ids": 2, "added": 1, "removed": 1,
        "kept": 1,
    }  # fmt: skip


def test_nothing_in_tmp(lab: "Lab", rows: Any) -> None:
    lab.publish([rows.ndt7("x")])
    assert compared(lab) == {"published": 1, "published_ids": 1, "removed": 1}


def test_rows_that_a_join_would_annotate(lab: "Lab", rows: Any) -> None:
    lab.publish([rows.ndt7("x"), rows.ndt7("y"), rows.ndt7(None)])
    survey = lab.warehouse().survey
    before = survey.count_annotated(lab.tables(), lab.context())
    assert (before.rows, before.annotated, before.published) == (3, 0, 0)
    lab.publish([rows.annotation("x", "lga01")], datatype="annotation2")
    lab.warehouse().join(lab.tables(), lab.context(), annotations_known_empty=False)
    found = survey.count_annotated(lab.tables(), lab.context())
    assert (found.rows, found.annotated, found.published) == (3, 1, 3)
    joined = lab.rows(lab.tables().joined_partition(DATE), "id, server")
    assert [row["id"] for row in joined if row["server"]] == ["x"]
