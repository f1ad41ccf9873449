"""Datasets and tables, through the client."""

from typing import TYPE_CHECKING, Any

import pytest
from google.api_core.exceptions import BadRequest, Conflict, NotFound, PreconditionFailed
from google.cloud import bigquery

if TYPE_CHECKING:
    from tests.gardener_dagster.local.bigquery.conftest import Lab


def field(name: str, kind: str = "STRING", mode: str = "NULLABLE", *inner: Any) -> Any:
    return bigquery.SchemaField(name, kind, mode=mode, fields=inner)


def test_a_dataset_is_made_found_changed_and_deleted(client: bigquery.Client) -> None:
    dataset = bigquery.Dataset(f"{client.project}.of_all_kinds")
    dataset.location = "EU"
    dataset.labels = {"a": "1", "b": "2"}
    made = client.create_dataset(dataset)
    assert (made.location, made.labels) == ("EU", {"a": "1", "b": "2"})
    made.labels = {"a": "9", "b": None}
    made.description = "new"
    client.update_dataset(made, ["labels", "description"])
    found = client.get_dataset("of_all_kinds")
    assert (found.labels, found.description) == ({"a": "9"}, "new")
    assert "of_all_kinds" in [one.dataset_id for one in client.list_datasets()]
    client.delete_dataset("of_all_kinds")
    with pytest.raises(NotFound, match="Not found: Dataset"):
        client.get_dataset("of_all_kinds")


def test_a_dataset_with_tables_is_deleted_only_with_them(lab: "Lab") -> None:
    lab.client.create_dataset("full")
    lab.client.create_table(bigquery.Table(f"{lab.client.project}.full.t"))
    with pytest.raises(BadRequest, match="still in use"):
        lab.client.delete_dataset("full")
    lab.client.delete_dataset("full", delete_contents=True)
    with pytest.raises(NotFound):
        lab.client.get_table("full.t")


def test_what_is_there_already_is_a_conflict(lab: "Lab") -> None:
    with pytest.raises(Conflict, match="Already Exists: Dataset"):
        lab.client.create_dataset(lab.dataset)
    lab.table()
    with pytest.raises(Conflict, match=rf"Already Exists: Table {lab.client.project}:"):
        lab.table()


def test_a_missing_table_and_a_missing_dataset_are_named(lab: "Lab") -> None:
    with pytest.raises(NotFound, match=rf"Not found: Table {lab.client.project}:{lab.dataset}\.x"):
        lab.client.get_table(f"{lab.dataset}.x")
    with pytest.raises(NotFound, match="Not found: Dataset"):
        lab.client.get_table("nowhere.x")
    with pytest.raises(NotFound, match="Not found: Dataset"):
        lab.client.create_table(bigquery.Table(f"{lab.client.project}.nowhere.x"))


def test_a_table_keeps_all_that_it_was_made_with(lab: "Lab") -> None:
    lab.table(
        "whole",
        labels={"k": "v"},
        description="about",
        time_partitioning=bigquery.TimePartitioning(field="date", expiration_ms=86_400_000),
    )
    table = lab.client.get_table(f"{lab.dataset}.whole")
    assert table.labels == {"k": "v"}
    assert table.description == "about"
    assert table.require_partition_filter
    assert table.time_partitioning is not None
    assert table.time_partitioning.expiration_ms == 86_400_000
    assert [(one.name, one.field_type, one.mode) for one in table.schema] == [
        ("id", "STRING", "NULLABLE"),
        ("date", "DATE", "NULLABLE"),
        ("n", "INTEGER", "NULLABLE"),
        ("parser", "RECORD", "NULLABLE"),
        ("items", "RECORD", "REPEATED"),
        ("tags", "STRING", "REPEATED"),
    ]
    assert [one.name for one in table.schema[3].fields] == ["Version", "Time"]
    assert (table.num_rows, table.num_bytes) == (0, 0)
    assert table.created == table.modified


def test_table_names_mind_case_and_column_names_do_not(lab: "Lab") -> None:
    lab.table("T", day="")
    lab.table("t", [{"name": "other", "type": "STRING"}], day="")
    assert [one.table_id for one in lab.client.list_tables(lab.dataset)] == ["T", "t"]
    assert lab.query("SELECT ID, Parser.version FROM T") == []
    assert lab.query("SELECT OTHER FROM t") == []


def test_tables_are_listed_page_by_page(lab: "Lab") -> None:
    for number in range(5):
        lab.table(f"t{number}")
    pages = lab.client.list_tables(lab.dataset, page_size=2).pages
    assert [[table.table_id for table in page] for page in pages] == [
        ["t0", "t1"],
        ["t2", "t3"],
        ["t4"],
    ]


def test_fields_are_added_at_any_depth_and_rows_have_null_there(lab: "Lab", row: Any) -> None:
    lab.table()
    lab.fill("t$20240301", [row("a", items=[{"p": 1}])])
    table = lab.client.get_table(f"{lab.dataset}.t")
    schema = list(table.schema)
    schema[3] = field(
        "parser",
        "RECORD",
        "NULLABLE",
        *schema[3].fields,
        field("Host", "RECORD", "NULLABLE", field("name")),
    )
    schema[4] = field("items", "RECORD", "REPEATED", *schema[4].fields, field("r", "FLOAT"))
    table.schema = [*schema, field("late", "INTEGER"), field("many", "STRING", "REPEATED")]
    lab.client.update_table(table, ["schema"])
    [found] = lab.rows("t")
    assert found["parser"]["Host"] is None
    assert found["items"] == [{"p": 1, "q": None, "r": None}]
    assert (found["late"], found["many"]) == (None, [])
    lab.fill(
        "t$20240301",
        [row("b", late=3, parser={"host": {"name": "h"}}, items=[{"R": 1.5}], many=["x"])],
    )
    [found] = lab.rows("t")
    assert found["parser"]["Host"] == {"name": "h"}
    assert found["items"] == [{"p": None, "q": None, "r": 1.5}]
    assert (found["late"], found["many"]) == (3, ["x"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda schema: schema[1:], "Field id is missing in new schema"),
        (
            lambda schema: [field("id", "INTEGER"), *schema[1:]],
            "changed type from STRING to INTEGER",
        ),
        (lambda schema: [field("id", mode="REPEATED"), *schema[1:]], "changed mode from NULLABLE"),
        (lambda schema: [*schema, field("x", mode="REQUIRED")], "Cannot add required fields"),
    ],
)
def test_a_schema_only_grows(lab: "Lab", change: Any, said: str) -> None:
    lab.table()
    table = lab.client.get_table(f"{lab.dataset}.t")
    table.schema = change(list(table.schema))
    with pytest.raises(BadRequest, match=said):
        lab.client.update_table(table, ["schema"])


def test_a_required_field_can_be_relaxed(lab: "Lab") -> None:
    lab.table("r", [{"name": "id", "type": "STRING", "mode": "REQUIRED"}], day="")
    table = lab.client.get_table(f"{lab.dataset}.r")
    table.schema = [field("id")]
    assert lab.client.update_table(table, ["schema"]).schema[0].mode == "NULLABLE"


def test_a_change_of_what_somebody_else_has_changed_is_refused(lab: "Lab") -> None:
    lab.table()
    mine = lab.client.get_table(f"{lab.dataset}.t")
    theirs = lab.client.get_table(f"{lab.dataset}.t")
    theirs.description = "first"
    lab.client.update_table(theirs, ["description"])
    mine.description = "second"
    with pytest.raises(PreconditionFailed, match="Precondition check failed"):
        lab.client.update_table(mine, ["description"])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ([{"name": "a", "type": "STRNG"}], "STRNG is not a valid value"),
        ([{"name": "a", "type": "STRING"}, {"name": "A", "type": "DATE"}], "Duplicate column"),
        ([{"name": "a b!", "type": "STRING"}], "Invalid field name"),
        ([{"name": "a", "type": "RECORD"}], "type RECORD but has no schema"),
    ],
)
def test_a_schema_that_is_none_is_refused(lab: "Lab", fields: list[Any], said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        lab.table("bad", fields, day="")


@pytest.mark.parametrize(
    ("day", "said"),
    [("nothing", "cannot be found in the schema: nothing"), ("id", "must be a DATE")],
)
def test_a_partitioning_column_must_have_a_time(lab: "Lab", day: str, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        lab.table("bad", day=day)


def test_a_table_without_columns_is_possible(lab: "Lab") -> None:
    lab.table("empty", [], day="")
    assert lab.client.get_table(f"{lab.dataset}.empty").schema == []
