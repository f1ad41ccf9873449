"""Copy jobs, through the client."""

from typing import TYPE_CHECKING, Any

import pytest
from google.api_core.exceptions import BadRequest, GoogleAPICallError, NotFound
from google.cloud import bigquery

if TYPE_CHECKING:
    from tests.gardener_dagster.local.bigquery.conftest import Lab


@pytest.fixture
def filled(lab: "Lab", row: Any) -> "Lab":
    lab.table()
    lab.table("raw")
    lab.fill("t$20240301", [row("a"), row("b")])
    lab.fill("t$20240302", [row("c", "2024-03-02")])
    lab.fill("raw$20240301", [row("old")])
    lab.fill("raw$20240302", [row("kept", "2024-03-02")])
    return lab


def copy(lab: "Lab", source: Any, destination: str, disposition: str = "") -> bigquery.CopyJob:
    config = bigquery.CopyJobConfig()
    if disposition:
        config.write_disposition = disposition
    sources = [source] if isinstance(source, str) else source
    job: bigquery.CopyJob = lab.client.copy_table(
        [lab.ref(one) for one in sources], lab.ref(destination), job_config=config
    )
    job.result()
    return job


def ids(lab: "Lab", name: str) -> list[str]:
    return [one["id"] for one in lab.rows(name)]


def test_a_partition_replaces_a_partition(filled: "Lab") -> None:
    job = copy(filled, "t$20240301", "raw$20240301", "WRITE_TRUNCATE")
    assert ids(filled, "raw") == ["a", "b", "kept"]
    assert job._properties["statistics"]["copy"]["copiedRows"] == "2"
    source = filled.client.get_table(f"{filled.dataset}.t$20240301")
    copied = filled.client.get_table(f"{filled.dataset}.raw$20240301")
    assert (copied.num_rows, copied.num_bytes) == (source.num_rows, source.num_bytes)


def test_a_partition_is_appended(filled: "Lab") -> None:
    copy(filled, "t$20240301", "raw$20240301", "WRITE_APPEND")
    assert ids(filled, "raw") == ["a", "b", "kept", "old"]


def test_what_is_there_is_not_replaced_unasked(filled: "Lab") -> None:
    for disposition in ("", "WRITE_EMPTY"):
        with pytest.raises(GoogleAPICallError, match="Already Exists"):
            copy(filled, "t$20240301", "raw$20240301", disposition)
    filled.client.delete_table(f"{filled.dataset}.raw$20240301")
    copy(filled, "t$20240301", "raw$20240301")
    assert ids(filled, "raw") == ["a", "b", "kept"]


def test_a_copy_of_a_table_is_partitioned_like_it(filled: "Lab") -> None:
    copy(filled, "t", "whole")
    table = filled.client.get_table(f"{filled.dataset}.whole")
    assert table.time_partitioning is not None
    assert (table.num_rows, table.time_partitioning.field) == (3, "date")
    assert table.require_partition_filter
    copy(filled, "t$20240301", "fresh$20240301")
    assert filled.client.get_table(f"{filled.dataset}.fresh").time_partitioning is not None


def test_several_sources(filled: "Lab") -> None:
    copy(filled, ["t$20240301", "raw$20240301"], "raw$20240301", "WRITE_TRUNCATE")
    assert ids(filled, "raw") == ["a", "b", "kept", "old"]


def test_rows_of_another_day_are_refused(filled: "Lab") -> None:
    with pytest.raises(BadRequest, match="Some rows belong to different partitions"):
        copy(filled, "t$20240301", "raw$20240302", "WRITE_TRUNCATE")
    with pytest.raises(BadRequest, match="Some rows belong to different partitions"):
        copy(filled, "t", "raw$20240302", "WRITE_TRUNCATE")
    assert ids(filled, "raw") == ["kept", "old"]


def test_another_schema_is_refused(filled: "Lab") -> None:
    more = [
        {"name": "id", "type": "STRING"},
        {"name": "date", "type": "DATE"},
        {"name": "new", "type": "STRING"},
    ]
    filled.table("more", more)
    filled.fill("more$20240301", [{"id": "x", "date": "2024-03-01", "new": "y"}])
    with pytest.raises(BadRequest, match=r"Provided Schema does not match Table .*field: new"):
        copy(filled, "more$20240301", "raw$20240301", "WRITE_TRUNCATE")
    filled.table("other", [{"name": "id", "type": "INTEGER"}, {"name": "date", "type": "DATE"}])
    filled.fill("other$20240301", [{"id": 1, "date": "2024-03-01"}])
    with pytest.raises(BadRequest, match="Field id has changed type from STRING to INTEGER"):
        copy(filled, "other$20240301", "raw$20240301", "WRITE_TRUNCATE")
    with pytest.raises(BadRequest, match="Source tables have different schemas"):
        copy(filled, ["t", "more"], "mixed")
    assert ids(filled, "raw") == ["kept", "old"]


def test_missing_sources_are_named(filled: "Lab") -> None:
    for source in ("nothing", "t$19990101"):
        with pytest.raises(NotFound) as raised:
            copy(filled, source, "raw$20240301", "WRITE_TRUNCATE")
        assert f"Not found: Table {filled.client.project}:{filled.dataset}.{source}" in str(
            raised.value
        )
    with pytest.raises(BadRequest, match='Invalid partition decorator "today"'):
        copy(filled, "t$today", "raw$20240301", "WRITE_TRUNCATE")


def test_a_partition_is_deleted(filled: "Lab") -> None:
    filled.client.delete_table(f"{filled.dataset}.t$20240301")
    assert ids(filled, "t") == ["c"]
    with pytest.raises(NotFound, match=r"Not found: Table .*t\$20240301"):
        filled.client.delete_table(f"{filled.dataset}.t$20240301")
    filled.client.delete_table(f"{filled.dataset}.t$20240301", not_found_ok=True)
    assert filled.client.get_table(f"{filled.dataset}.t").num_rows == 1
