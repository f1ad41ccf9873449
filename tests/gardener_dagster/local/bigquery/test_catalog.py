"""Datasets and tables, through the client."""

import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest
from google.api_core.exceptions import BadRequest, Conflict, NotFound, PreconditionFailed
from google.cloud import bigquery

if TYPE_CHECKING:
    from tests.gardener_dagster.local.bigquery.conftest import Clock, Lab


def field(name: str, kind: str = "STRING", mode: str = "NULLABLE", *inner: Any) -> Any:
    return bigquery.SchemaField(name, kind, mode=mode, fields=inner)


def test_a_dataset_is_created_found_and_deleted(client: bigquery.Client) -> None:
    dataset = bigquery.Dataset(f"{client.project}.of_all_kinds")
    dataset.location = "EU"
    client.create_dataset(dataset)
    assert client.get_dataset("of_all_kinds").location == "EU"
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


def test_existing_datasets_and_tables_are_conflicts(lab: "Lab") -> None:
    with pytest.raises(Conflict, match="Already Exists: Dataset"):
        lab.client.create_dataset(lab.dataset)
    lab.table()
    with pytest.raises(Conflict, match=rf"Already Exists: Table {lab.client.project}:"):
        lab.table()


def test_errors_name_the_missing_table_or_dataset(lab: "Lab") -> None:
    with pytest.raises(NotFound, match=rf"Not found: Table {lab.client.project}:{lab.dataset}\.x"):
        lab.client.get_table(f"{lab.dataset}.x")
    with pytest.raises(NotFound, match="Not found: Dataset"):
        lab.client.get_table("nowhere.x")
    with pytest.raises(NotFound, match="Not found: Dataset"):
        lab.client.create_table(bigquery.Table(f"{lab.client.project}.nowhere.x"))


def test_a_table_keeps_its_properties(lab: "Lab") -> None:
    lab.table("whole", labels={"k": "v"}, description="about")
    table = lab.client.get_table(f"{lab.dataset}.whole")
    assert (table.labels, table.description) == ({"k": "v"}, "about")
    assert table.require_partition_filter
    assert table.time_partitioning is not None
    assert table.time_partitioning.field == "date"
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


def test_case_counts_in_names_of_tables_and_not_of_columns(lab: "Lab") -> None:
    lab.table("T", day="")
    lab.table("t", [{"name": "other", "type": "STRING"}], day="")
    assert [one.table_id for one in lab.client.list_tables(lab.dataset)] == ["T", "t"]
    assert lab.query("SELECT ID, Parser.version FROM T") == []
    assert lab.query("SELECT OTHER FROM t") == []


def test_fields_are_added_at_any_depth_and_old_rows_have_null_there(lab: "Lab", row: Any) -> None:
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
        (lambda schema: [field("id", "INTEGER"), *schema[1:]], "type from STRING to INTEGER"),
        (lambda schema: [field("id", mode="REPEATED"), *schema[1:]], "changed mode from NULLABLE"),
    ],
)
def test_fields_do_not_go_or_change(lab: "Lab", change: Any, said: str) -> None:
    lab.table()
    table = lab.client.get_table(f"{lab.dataset}.t")
    table.schema = change(list(table.schema))
    with pytest.raises(BadRequest, match=said):
        lab.client.update_table(table, ["schema"])


def test_a_change_of_a_table_that_changed_meanwhile_is_refused(lab: "Lab") -> None:
    lab.table()
    mine = lab.client.get_table(f"{lab.dataset}.t")
    theirs = lab.client.get_table(f"{lab.dataset}.t")
    theirs.schema = [*theirs.schema, field("first")]
    lab.client.update_table(theirs, ["schema"])
    mine.schema = [*mine.schema, field("second")]
    with pytest.raises(PreconditionFailed, match="Precondition check failed"):
        lab.client.update_table(mine, ["schema"])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ([{"name": "a", "type": "STRING"}, {"name": "A", "type": "DATE"}], "Duplicate column"),
        ([{"name": "a b!", "type": "STRING"}], "Invalid field name"),
        ([{"name": "a", "type": "RECORD"}], "type RECORD but has no schema"),
    ],
)
def test_an_invalid_schema_is_refused(lab: "Lab", fields: list[Any], said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        lab.table("bad", fields, day="")


def test_a_partitioning_column_must_be_in_the_schema(lab: "Lab") -> None:
    with pytest.raises(BadRequest, match="cannot be found in the schema: nothing"):
        lab.table("bad", day="nothing")


def test_a_table_without_columns_is_possible(lab: "Lab") -> None:
    lab.table("empty", [], day="")
    assert lab.client.get_table(f"{lab.dataset}.empty").schema == []


def test_a_table_expires(clocked: "Lab", clock: "Clock") -> None:
    clocked.table("gone", expires=clock.now + dt.timedelta(hours=1))
    clocked.table("stays")
    clock.now += dt.timedelta(hours=2)
    assert [one.table_id for one in clocked.client.list_tables("d")] == ["stays"]
    with pytest.raises(NotFound):
        clocked.client.get_table("d.gone")


def test_a_partition_is_deleted(lab: "Lab", row: Any) -> None:
    lab.table()
    lab.fill("t$20240301", [row("a")])
    lab.fill("t$20240302", [row("b", "2024-03-02")])
    lab.client.delete_table(f"{lab.dataset}.t$20240301")
    assert [one["id"] for one in lab.rows("t")] == ["b"]
    with pytest.raises(NotFound, match=r"Not found: Table .*t\$20240301"):
        lab.client.delete_table(f"{lab.dataset}.t$20240301")
    assert lab.client.get_table(f"{lab.dataset}.t").num_rows == 1
    with pytest.raises(BadRequest, match='Invalid partition decorator "today"'):
        lab.client.delete_table(f"{lab.dataset}.t$today")
