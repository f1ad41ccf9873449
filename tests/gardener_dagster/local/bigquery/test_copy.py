"""Copy jobs, through the client."""

from typing import TYPE_CHECKING, Any

import pytest
from google.api_core.exceptions import BadRequest, NotFound
from google.cloud import bigquery

if TYPE_CHECKING:
    from tests.gardener_dagster.local.bigquery.conftest import Lab


@pytest.fixture
def filled(lab: "Lab", row: Any) -> "Lab":
    lab.table()
    lab.table("raw")
    lab.fill("t$20240301", [row("a"), row("b")])
    lab.fill("raw$20240301", [row("old")])
    lab.fill("raw$20240302", [row("kept", "2024-03-02")])
    return lab


def copy(lab: "Lab", source: str, destination: str) -> bigquery.CopyJob:
    config = bigquery.CopyJobConfig(write_disposition="WRITE_TRUNCATE")
    job: bigquery.CopyJob = lab.client.copy_table(
        lab.ref(source), lab.ref(destination), job_config=config
    )
    job.result()
    return job


def ids(lab: "Lab", name: str) -> list[str]:
    return [one["id"] for one in lab.rows(name)]


def test_a_partition_replaces_a_partition(filled: "Lab") -> None:
    job = copy(filled, "t$20240301", "raw$20240301")
    assert ids(filled, "raw") == ["a", "b", "kept"]
    assert job._properties["statistics"]["copy"]["copiedRows"] == "2"
    source = filled.client.get_table(f"{filled.dataset}.t$20240301")
    copied = filled.client.get_table(f"{filled.dataset}.raw$20240301")
    assert (copied.num_rows, copied.num_bytes) == (source.num_rows, source.num_bytes)


def test_rows_of_another_day_are_refused(filled: "Lab") -> None:
    for source in ("t$20240301", "t"):
        with pytest.raises(BadRequest, match="Some rows belong to different partitions"):
            copy(filled, source, "raw$20240302")
    assert ids(filled, "raw") == ["kept", "old"]


@pytest.mark.parametrize(
    ("fields", "values", "said"),
    [
        ([("id", "STRING"), ("new", "STRING")], {"new": "y"}, "does not match Table .*field: new"),
        ([("id", "INTEGER")], {"id": 1}, "Field id has changed type from STRING to INTEGER"),
    ],
)
def test_another_schema_is_refused(
    filled: "Lab", fields: list[tuple[str, str]], values: Any, said: str
) -> None:
    schema = [{"name": name, "type": kind} for name, kind in [*fields, ("date", "DATE")]]
    filled.table("other", schema)
    filled.fill("other$20240301", [values | {"date": "2024-03-01"}])
    with pytest.raises(BadRequest, match=said):
        copy(filled, "other$20240301", "raw$20240301")
    assert ids(filled, "raw") == ["kept", "old"]


def test_missing_sources_are_named(filled: "Lab") -> None:
    for source in ("nothing", "t$19990101"):
        with pytest.raises(NotFound) as raised:
            copy(filled, source, "raw$20240301")
        missing = f"Not found: Table {filled.client.project}:{filled.dataset}.{source}"
        assert missing in str(raised.value)
    with pytest.raises(BadRequest, match='Invalid partition decorator "today"'):
        copy(filled, "t$today", "raw$20240301")
