"""The tables of one date, made in this process on a local BigQuery and Cloud Storage."""

import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from bigquery_server import running_server
from chain import DAY, Chain, failure, resumed, row
from dagster import DagsterRunStatus
from dagster._core.test_utils import create_run_for_test
from google.cloud import storage
from simulated import Put

from gardener_api.config import GardenerConfig
from gardener_api.jobs.job import JobState
from gardener_api.store.schema import StoreError
from gardener_api.store.store import JobStore
from gardener_dagster.assets.keys import MAY_EMPTY_TAG
from gardener_dagster.assets.table_runs import locking
from gardener_dagster.automation.sensor_inputs.parsed_jobs import ParsedTables
from gardener_dagster.planning.due_tables import job_key

NOW = dt.datetime(2024, 3, 2, 12, tzinfo=dt.UTC)
ROOT = Path(__file__).parents[3]
NDT7, ANNOTATION2 = "ndt/ndt7", "ndt/annotation2"
RAW, JOINED = dg.AssetKey(["raw_ndt", "ndt7"]), dg.AssetKey(["ndt", "ndt7"])


@pytest.fixture
def bigquery_url(
    bucket: storage.Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    with running_server(tmp_path / "bigquery") as url:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", url)
        yield url


@pytest.fixture
def chain(
    config: GardenerConfig,
    store: JobStore,
    defs: dg.Definitions,
    put_archive: Put,
    bucket: storage.Bucket,
    bigquery_url: str,
) -> Chain:
    parsed = bucket.client.bucket("etl-mlab")
    return Chain(config, store, defs, put_archive, parsed, bigquery_url)


@pytest.fixture
def logged() -> Iterator[dg.DagsterInstance]:
    """An instance that keeps the logs that dagster.yaml says."""
    overrides = {
        "python_logs": yaml.safe_load((ROOT / "dagster.yaml").read_text("utf-8"))["python_logs"]
    }
    with dg.instance_for_test(overrides=overrides) as instance:
        yield instance


def checks(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {e.check_name: e for e in result.get_asset_check_evaluations()}


def reason(result: dg.ExecuteInProcessResult) -> str:
    """Why the one date of a run failed, as its job has it."""
    said = failure(result)
    before, after = "1 date failed: 2024-03-01: ", ", then re-execute the run from its failure: "
    assert said.startswith(before)
    assert after in said
    return said.removeprefix(before).partition(after)[0]


def made_of(result: dg.ExecuteInProcessResult, key: dg.AssetKey) -> dg.AssetMaterialization:
    """The one materialization of a table in a run."""
    [made] = [
        event.materialization
        for event in result.get_asset_materialization_events()
        if event.asset_key == key
    ]
    return made


def test_a_day_runs_through_and_its_checks_say_so(
    chain: Chain, instance: dg.DagsterInstance
) -> None:
    chain.parse(ANNOTATION2, [row("x", datatype="annotation2", client={"Network": {}})])
    chain.parse(NDT7, [row("x"), row("x"), row("y", "b.tgz")], archives=2)
    chain.run(ANNOTATION2, "tmp", "raw", instance=instance)
    result = chain.run(NDT7, "tmp", "raw", "joined", instance=instance)
    assert result.success
    assert chain.state(NDT7) == (JobState.COMPLETE, "")
    found = {
        name: (e.passed, str(e.description).removeprefix("2024-03-01: "))
        for name, e in checks(result).items()
    }
    kept = chain.store.checks.of(job_key(chain.config.source(NDT7), DAY))
    assert found == {c.result.name: (c.result.passed, c.result.description) for c in kept}
    assert {c.run_id for c in kept} == {result.run_id}
    assert found == {
        "unique_keys": (True, "2 rows, each id once"),
        "rows_present": (True, "2 rows of 2 archives"),
        "archives_parsed": (True, "2 archives, all parsed and loaded"),
        "one_parser_version": (True, "v1: 2 rows"),
        "unique_ids": (True, "2 ids in 2 rows, the first version"),
        "rows_of_previous": (True, "the first version"),
        "ids_of_previous": (True, "no ids before"),
        "rows_of_week": (True, "2 rows; only 0 of the 7 days before have any to compare"),
        "rows_of_raw": (True, "2 rows, as raw"),
        "annotated": (
            False,
            "1 of 2 rows are annotated (50.0%), fewer than 90%: see whether the annotations of the"
            " date and of the day before are complete; when they are parsed again, the date is"
            " joined again automatically",
        ),
        "annotated_of_previous": (True, "50.0% annotated, none known before"),
    }
    assert checks(result)["annotated"].severity is dg.AssetCheckSeverity.WARN
    made = made_of(result, RAW)
    assert made.metadata["duplicates removed"].value == 1
    for cost in ("slot seconds", "bytes processed", "seconds running"):
        value = made.metadata[cost].value
        assert isinstance(value, int | float)
        assert value > 0
    operations = chain.store.tables.operations(job_key(chain.config.source(NDT7), DAY))
    assert [o.operation for o in operations] == ["load", "dedup", "copy", "delete", "join"]
    costs = {o.operation: (o.bytes > 0, o.slot_seconds > 0) for o in operations}
    assert costs["load"] == costs["dedup"] == costs["join"] == (True, True)


def test_d21_an_archive_that_came_after_the_parse_fails_the_check_and_is_named(
    chain: Chain, instance: dg.DagsterInstance, put_archive: Put
) -> None:
    chain.parse(NDT7, [row("x")])
    put_archive(DAY, "ndt7", "late.tgz")
    result = chain.run(NDT7, "tmp", "raw", instance=instance)
    found = checks(result)["archives_parsed"]
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.ERROR
    assert "1 of 2 archives were not parsed" in str(found.description)
    assert "ndt/ndt7/2024/03/01/late.tgz" in str(found.description)
    assert result.success  # what was parsed is in raw all the same


def test_a_version_with_fewer_rows_is_held(chain: Chain, instance: dg.DagsterInstance) -> None:
    chain.parse(NDT7, [row("x"), row("y")])
    chain.run(NDT7, "tmp", "raw", instance=instance)
    chain.write("ndt7", "a.tgz", [row("x")])
    result = chain.run(NDT7, "tmp", "raw", instance=instance)
    assert "2024-03-01: held: rows_of_previous: 1 rows, 2 in the version before" in failure(result)
    assert checks(result) == {}, "they tell of the published version"
    [held] = chain.store.held.waiting()
    assert [finding.audit for finding in held.findings] == ["rows_of_previous", "ids_of_previous"]


def test_a_row_that_bigquery_refuses_fails_the_date_and_is_named(
    chain: Chain, instance: dg.DagsterInstance
) -> None:
    chain.parse(NDT7, [row("x")])
    chain.write("ndt7", "a.tgz", [], text='{"id": "x", "date": \n')
    result = chain.run(NDT7, "tmp", "raw", instance=instance)
    assert not result.success
    first = reason(result)
    assert first.startswith("load tmp_ndt.ndt7$20240301: ")
    assert "a.tgz.jsonl" in first
    assert "What to do: " in first
    assert chain.state(NDT7) == (JobState.FAILED, f"{reason(result)}.")


def test_a_join_does_not_end_a_date_whose_load_failed(
    chain: Chain, instance: dg.DagsterInstance
) -> None:
    chain.parse(ANNOTATION2, [row("x", datatype="annotation2", client={"Network": {}})])
    chain.parse(NDT7, [row("x")])
    chain.run(ANNOTATION2, "tmp", "raw", instance=instance)
    assert chain.run(NDT7, "tmp", "raw", "joined", instance=instance).success
    chain.write("ndt7", "a.tgz", [], text='{"id": "x", "date": \n')
    failed = chain.run(NDT7, "tmp", "raw", instance=instance)
    assert chain.run(NDT7, "joined", instance=instance).success
    assert chain.state(NDT7) == (JobState.FAILED, f"{reason(failed)}.")
    chain.write("ndt7", "a.tgz", [row("x")])
    assert chain.run(NDT7, "tmp", "raw", instance=instance).success
    assert chain.state(NDT7)[0] is JobState.JOINING
    assert chain.run(NDT7, "joined", instance=instance).success
    assert chain.state(NDT7) == (JobState.COMPLETE, "")


def test_a_date_of_which_only_the_join_failed_is_repaired_by_a_join(
    chain: Chain, instance: dg.DagsterInstance
) -> None:
    chain.parse(NDT7, [row("x")])
    failed = chain.run(NDT7, "tmp", "raw", "joined", instance=instance)
    assert chain.state(NDT7) == (JobState.FAILED, f"{reason(failed)}.")
    chain.parse(ANNOTATION2, [row("x", datatype="annotation2", client={"Network": {}})])
    chain.run(ANNOTATION2, "tmp", "raw", instance=instance)
    assert chain.run(NDT7, "joined", instance=instance).success
    assert chain.state(NDT7) == (JobState.COMPLETE, "")


def test_a_bucket_that_cannot_be_listed_fails_the_date_and_is_named(
    chain: Chain, instance: dg.DagsterInstance, bucket: storage.Bucket
) -> None:
    chain.parse(NDT7, [row("x")])
    bucket.client.bucket("etl-mlab").delete(force=True)
    result = chain.run(NDT7, "tmp", "raw", instance=instance)
    assert reason(result).startswith(
        "ArchiveError: gs://etl-mlab/archive-mlab/ndt/ndt7/2024/03/01/ could not be listed: 404"
    )
    assert "What to do: see that the bucket is there" in failure(result)
    assert chain.state(NDT7) == (JobState.FAILED, reason(result))


def test_a_store_that_stays_away_fails_the_run_and_says_what_to_do(
    chain: Chain, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain.parse(NDT7, [row("x")])

    def away(*_: object, **__: object) -> None:
        raise StoreError("the job store does not answer. What to do: see whether it runs")

    with monkeypatch.context() as patch:
        patch.setattr(JobStore, "stage", away)
        patch.setattr(JobStore, "fail_stage", away)
        result = chain.run(NDT7, "tmp", "raw", instance=instance)
    assert failure(result) == (
        "1 date failed: 2024-03-01: the job store does not answer. What to do: see whether it runs,"
        " then re-execute the run from its failure: what was made is kept"
    )
    assert chain.run(NDT7, "tmp", "raw", instance=instance).success


def test_d13_a_rate_limit_passes_and_the_runs_log_tells_of_it(
    chain: Chain, logged: dg.DagsterInstance
) -> None:
    chain.parse(NDT7, [row("x")])
    chain.fault(action="job_error", job_type="copy", reason="jobRateLimitExceeded", times=2)
    chain.fault(
        action="error", method="POST", path="/jobs$", status=429, reason="rateLimitExceeded"
    )
    result = chain.run(NDT7, "tmp", "raw", instance=logged)
    assert result.success
    warnings = [
        entry.user_message
        for entry in logged.all_logs(result.run_id)
        if entry.level == 30 and entry.user_message
    ]
    assert any("copy raw_ndt.ndt7$20240301: BigQuery job" in w for w in warnings), warnings
    assert any("[jobRateLimitExceeded]; try 3 follows" in w for w in warnings), warnings
    assert any("could not be asked: injected [rateLimitExceeded]" in w for w in warnings), warnings
    made = made_of(result, RAW)
    assert made.metadata["tries that failed"].value == 2


def test_d20_a_date_that_lost_its_archives_keeps_its_rows_until_it_is_told_to(
    chain: Chain, instance: dg.DagsterInstance, bucket: storage.Bucket
) -> None:
    chain.parse(NDT7, [row("x")])
    chain.run(NDT7, "tmp", "raw", instance=instance)
    for blob in list(bucket.list_blobs()):
        blob.delete()
    chain.parse(NDT7, [], archives=0)
    refused = chain.run(NDT7, "tmp", "raw", instance=instance)
    assert "so the 1 rows in raw stay" in failure(refused)
    assert "gardener/may_empty: true" in failure(refused)
    emptied = chain.run(NDT7, "tmp", "raw", instance=instance, tags={MAY_EMPTY_TAG: "true"})
    assert emptied.success
    assert checks(emptied)["rows_present"].description == "2024-03-01: 0 rows of 0 archives"


@pytest.fixture
def started(instance: dg.DagsterInstance) -> Callable[[], dg.DagsterRun]:
    def start() -> dg.DagsterRun:
        run: dg.DagsterRun = create_run_for_test(instance, status=DagsterRunStatus.STARTED)
        return run

    return start


def test_a_run_that_waits_too_long_fails_and_names_the_other_and_the_job_goes_on(
    chain: Chain,
    instance: dg.DagsterInstance,
    started: Callable[[], dg.DagsterRun],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chain.parse(NDT7, [row("x")])
    other = started()
    chain.store.partition_locks.take("tmp_ndt.ndt7", DAY, run_id=other.run_id, now=NOW)
    monkeypatch.setattr(locking, "LOCK_WAIT", dt.timedelta(seconds=-1))
    result = chain.run(NDT7, "tmp", "raw", instance=instance)
    assert reason(result).startswith(
        f"run {other.run_id} works on tmp_ndt.ndt7$20240301 since 2024-03-02 12:00:00 UTC"
    )
    assert chain.state(NDT7) == (JobState.POST_PROCESSING, "")


def test_a_join_that_waited_too_long_is_repaired_by_a_join(
    chain: Chain,
    config: GardenerConfig,
    instance: dg.DagsterInstance,
    started: Callable[[], dg.DagsterRun],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chain.parse(ANNOTATION2, [row("x", datatype="annotation2", client={"Network": {}})])
    chain.run(ANNOTATION2, "tmp", "raw", instance=instance)
    chain.parse(NDT7, [row("x")])
    other = started()
    chain.store.partition_locks.take("ndt.ndt7", DAY, run_id=other.run_id, now=NOW)
    with monkeypatch.context() as patch:
        patch.setattr(locking, "LOCK_WAIT", dt.timedelta(seconds=-1))
        result = chain.run(NDT7, "tmp", "raw", "joined", instance=instance)
    assert reason(result).startswith(f"run {other.run_id} works on ndt.ndt7$20240301 since ")
    parsed = ParsedTables(config, instance, chain.store, now=dt.datetime.now(dt.UTC))
    parsed.find_lost()
    [again] = parsed.to_start()
    assert (again.source.name, again.first, again.joined) == ("ndt/ndt7", DAY, True)
    instance.report_run_failed(other)
    assert chain.run(NDT7, "tmp", "raw", "joined", instance=instance).success
    assert chain.state(NDT7) == (JobState.COMPLETE, "")


def test_d22_leftovers_in_tmp_go(
    chain: Chain, config: GardenerConfig, defs: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    chain.parse(NDT7, [row("x")])
    chain.run(NDT7, "tmp", instance=instance)
    job = defs.resolve_job_def("expire_tmp")

    def deleted(**changed: Any) -> str:
        warehouse = {"config": {"project": "p"} | changed}
        result = job.execute_in_process(
            instance=instance, run_config={"resources": {"warehouse": warehouse}}
        )
        [event] = result.filter_events(lambda e: e.is_successful_output)
        return str(event.step_output_data.metadata["partitions deleted"].value)

    assert deleted() == "0"
    assert deleted(tmp_expiration_seconds=0.0) == "1\ntmp_ndt.ndt7$20240301"
    assert deleted(tmp_expiration_seconds=0.0) == "0"


def test_a_resumed_run_loads_again_what_expired_in_tmp(
    chain: Chain, defs: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    chain.parse(NDT7, [row("x")])
    chain.fault(action="job_error", job_type="copy", reason="invalid")
    failed = chain.run(NDT7, "tmp", "raw", instance=instance)
    assert not failed.success
    warehouse = {"config": {"project": "p", "tmp_expiration_seconds": 0.0}}
    defs.resolve_job_def("expire_tmp").execute_in_process(
        instance=instance, run_config={"resources": {"warehouse": warehouse}}
    )
    assert chain.run(NDT7, "tmp", "raw", instance=instance, tags=resumed(failed.run_id)).success
    assert chain.operations(NDT7) == ["load", "dedup", "load", "dedup", "copy", "delete"]
