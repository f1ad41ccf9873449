"""Runs of the step ``parse`` in the test's own process."""

import datetime as dt
from collections.abc import Callable

import dagster as dg

from gardener_api.store.store import JobStore

DAYS = [dt.date(2024, 3, day) for day in (1, 2, 3)]
"""Of the archives that there are."""
NOW = dt.datetime(2024, 3, 5, tzinfo=dt.UTC)
NDT7 = dg.AssetKey(["parsed", "ndt", "ndt7"])
At = Callable[..., None]
"""Has something happen when a run first looks at its jobs; ``always=True``: each time."""


def run_parse(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    keys: list[dg.AssetKey],
    first: dt.date,
    last: dt.date | None = None,
    **of_backfill: str,
) -> dg.ExecuteInProcessResult:
    """Run it for one date, or for a range, which may be of a ``backfill``."""
    job = defs.resolve_implicit_global_asset_job_def()
    single = {"partition_key": first.isoformat()}
    tags = {
        "dagster/asset_partition_range_start": first.isoformat(),
        "dagster/asset_partition_range_end": (last or first).isoformat(),
        **{f"dagster/{name}": value for name, value in of_backfill.items()},
    }
    return job.execute_in_process(
        instance=instance,
        asset_selection=keys,
        raise_on_error=False,
        **({"tags": tags} if last else single),
    )


def retry(
    defs: dg.Definitions, instance: dg.DagsterInstance, of: dg.DagsterRun, number: int = 1
) -> dg.ExecuteInProcessResult:
    """As Dagster retries a run: all its tags, and whose retry it is."""
    return defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        asset_selection=sorted(of.asset_selection or ()),
        tags={
            **{k: v for k, v in of.tags.items() if "asset_partition_range" in k},
            "dagster/parent_run_id": of.run_id,
            "dagster/root_run_id": of.tags.get("dagster/root_run_id", of.run_id),
            "dagster/is_resume_retry": "true",
            "dagster/retry_number": str(number),
        },
        raise_on_error=False,
    )


def states(store: JobStore) -> list[str]:
    return [job.state for job in store.jobs(limit=10)]


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    [failure] = [e for e in result.all_events if e.is_step_failure]
    return str(failure.step_failure_data.error_display_string)


def materialized(instance: dg.DagsterInstance, key: dg.AssetKey) -> set[str]:
    return set(instance.get_materialized_partitions(key))
