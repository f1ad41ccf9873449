"""Names, job ids, labels: what BigQuery accepts, and what stays the same."""

import datetime as dt
import re
import subprocess
import sys

import pytest

from gardener_dagster.warehouse.names import (
    JobContext,
    Partition,
    SourceTables,
    column_path,
    labels,
    quoted_table,
)

DATE = dt.date(2024, 3, 1)
PARTITION = Partition(dataset="tmp_ndt", table="ndt7", date=DATE)
TABLES = SourceTables(experiment="ndt", datatype="ndt7", tmp="tmp_ndt", raw="raw_ndt", joined="ndt")
JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,1024}")


def test_partitions_are_written_as_bigquery_writes_them() -> None:
    assert PARTITION.id == "tmp_ndt.ndt7$20240301"
    assert PARTITION.table_id == "tmp_ndt.ndt7"
    assert TABLES.raw_partition(DATE).id == "raw_ndt.ndt7$20240301"
    assert TABLES.joined_partition(DATE).id == "ndt.ndt7$20240301"
    assert TABLES.annotations_partition(DATE).id == "raw_ndt.annotation2$20240301"


def test_a_source_without_a_join_dataset_has_no_joined_partition() -> None:
    tables = SourceTables(experiment="ndt", datatype="pcap", tmp="tmp_ndt", raw="raw_ndt")
    with pytest.raises(ValueError, match="ndt/pcap has no join dataset"):
        tables.joined_partition(DATE)


def test_job_ids_differ_by_what_makes_it_other_work_and_by_nothing_else() -> None:
    contexts = [
        JobContext(run_id="a", date=DATE),
        JobContext(run_id="a", date=DATE, attempt=2),
        JobContext(run_id="b", date=DATE),
        JobContext(run_id="a:b", date=DATE),
        JobContext(run_id="a_b", date=DATE),
    ]
    other = Partition(dataset="tmp_ndt", table="ndt7", date=dt.date(2024, 3, 2))
    steps = ["load", "dedup-count"]
    ids = [c.job_id(s, p) for c in contexts for s in steps for p in (PARTITION, other)]
    assert len(set(ids)) == len(ids)
    assert all(JOB_ID.fullmatch(job_id) for job_id in ids)
    again = JobContext(run_id="a:b", date=DATE)
    assert again.job_id("load", PARTITION) == contexts[3].job_id("load", PARTITION)


def test_a_very_long_run_id_still_makes_a_valid_and_distinct_job_id() -> None:
    ids = {JobContext(run_id="r" * 2000 + end, date=DATE).job_id("load", PARTITION) for end in "xy"}
    assert len(ids) == 2
    assert all(JOB_ID.fullmatch(job_id + "-123456") for job_id in ids)


def test_labels_obey_bigquerys_rules() -> None:
    ctx = JobContext(run_id="Run:" + "X" * 100, date=DATE)
    found = labels(TABLES, ctx, "load")
    assert found["experiment"] == "ndt"
    assert found["date"] == "20240301"
    assert found["run"].startswith("run_xxx")
    assert all(re.fullmatch(r"[a-z0-9_-]{1,63}", value) for value in found.values())


@pytest.mark.parametrize("path", ["", "a b", "id`", "parser.", "id; DROP TABLE x", "1a", "ä"])
def test_what_is_no_column_never_gets_into_sql(path: str) -> None:
    with pytest.raises(ValueError, match="column"):
        column_path(path)


def test_columns_and_tables_are_quoted() -> None:
    assert column_path("parser.ArchiveURL") == "`parser`.`ArchiveURL`"
    assert quoted_table("mlab-oti", "raw_ndt.ndt7") == "`mlab-oti.raw_ndt.ndt7`"


@pytest.mark.parametrize(
    ("project", "table"), [("x`y", "a.b"), ("p", "a`.b"), ("p", "a.b-c"), ("p", "a")]
)
def test_what_is_no_table_never_gets_into_sql(project: str, table: str) -> None:
    with pytest.raises(ValueError, match=r"project|dataset|table"):
        quoted_table(project, table)


def test_a_source_with_an_impossible_dataset_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"raw: 'raw-ndt'"):
        SourceTables(experiment="ndt", datatype="ndt7", tmp="tmp_ndt", raw="raw-ndt")


def test_what_definitions_need_costs_no_import_of_the_clients() -> None:
    modules = ("names", "objects", "errors", "results")
    imports = "; ".join(f"import gardener_dagster.warehouse.{name}" for name in modules)
    code = f"import sys; {imports}; print([m for m in sys.modules if m.split('.')[0] == 'google'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("[]", "['google']")
