"""Which limits a run counts for, by the real queue and a real code server."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterRunStatus
from dagster._core.remote_origin import RemoteJobOrigin
from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget, ModuleTarget

from gardener_dagster.assets.keys import BACKFILL_TAG, PARSE_TAG, TABLES_TAG, URGENT_TABLES_TAG
from gardener_dagster.run_queue import GardenerRunQueue

ROOT = Path(__file__).parent.parent.parent
QUEUE = """
run_coordinator: {module: gardener_dagster.run_queue, class: GardenerRunQueue}
telemetry: {enabled: false}
"""


@pytest.fixture(scope="module")
def workspace(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[WorkspaceRequestContext]:
    home = tmp_path_factory.mktemp("home")
    (home / "dagster.yaml").write_text(QUEUE, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(home))
        patch.setenv("GARDENER_CONFIG", str(ROOT / "gardener.yml"))
        patch.setenv("GARDENER_PROJECT", "p")
        patch.setenv("GARDENER_INPUT_LOCATION", "b")
        target = ModuleTarget("gardener_dagster.definitions", None, str(ROOT), "gardener")
        with (
            dg.DagsterInstance.get() as instance,
            WorkspaceProcessContext(instance, target) as process,
        ):
            yield process.create_request_context()


def tags_of(workspace: WorkspaceRequestContext, job_name: str, *assets: str) -> set[str]:
    """The tags of limits that a run has once it is in the queue; no assets: none are selected."""
    return set(limits_of(workspace, workspace, job_name, *assets))


def limits_of(
    workspace: WorkspaceRequestContext,
    submitting: WorkspaceRequestContext,
    job_name: str,
    *assets: str,
    **tags: str,
) -> dict[str, str]:
    location = workspace.get_code_location("gardener")
    repository = next(iter(location.get_repositories().values()))
    run = workspace.instance.run_storage.add_run(
        dg.DagsterRun(
            job_name=job_name,
            status=DagsterRunStatus.NOT_STARTED,
            remote_job_origin=RemoteJobOrigin(repository.get_remote_origin(), job_name),
            asset_selection=frozenset(map(dg.AssetKey.from_user_string, assets)) or None,
            tags=tags,
        )
    )
    coordinator = workspace.instance.run_coordinator
    assert isinstance(coordinator, GardenerRunQueue)
    coordinator.submit_run(dg.SubmitRunContext(run, submitting))
    queued = workspace.instance.get_run_by_id(run.run_id)
    assert queued is not None
    assert queued.status is DagsterRunStatus.QUEUED
    limited = (PARSE_TAG, TABLES_TAG, URGENT_TABLES_TAG)
    return {tag: queued.tags[tag] for tag in limited if tag in queued.tags}


@pytest.mark.parametrize("job_name", ["freshness", "expire_tmp"])
def test_d28_a_run_that_makes_no_tables_waits_for_none(
    workspace: WorkspaceRequestContext, job_name: str
) -> None:
    assert tags_of(workspace, job_name) == set()


def test_a_run_counts_for_what_it_makes(workspace: WorkspaceRequestContext) -> None:
    assert tags_of(workspace, "__ASSET_JOB", "parsed/ndt/ndt7") == {PARSE_TAG}
    assert tags_of(workspace, "__ASSET_JOB", "raw_ndt/ndt7") == {URGENT_TABLES_TAG}
    assert tags_of(workspace, "__ASSET_JOB") == {PARSE_TAG}  # without a selection: all of the job


def test_a_run_that_is_launched_while_the_daemon_shuts_down_counts_too(
    workspace: WorkspaceRequestContext,
) -> None:
    # On its way out a daemon empties its workspace; its sensors' threads still launch runs.
    with WorkspaceProcessContext(workspace.instance, EmptyWorkspaceTarget()) as process:
        empty = process.create_request_context()

    def limits(*assets: str, **tags: str) -> dict[str, str]:
        return limits_of(workspace, empty, "__ASSET_JOB", *assets, **tags)

    asked_for = {PARSE_TAG: "historical"}
    assert limits("parsed/ndt/ndt7", **asked_for) == asked_for
    assert limits("parsed/ndt/ndt7") == {PARSE_TAG: "backfill"}
    assert limits("raw_ndt/ndt7", **{TABLES_TAG: "ndt"}) == {TABLES_TAG: "ndt"}
    assert limits("raw_ndt/ndt7", **{BACKFILL_TAG: "b"}) == {TABLES_TAG: "raw_ndt"}
