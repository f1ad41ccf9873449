"""One process that makes the tables of one date and no more: what the steps cost at the least.

    python tests/support/floor.py 2024-01-01 raw|joined SOURCES

It imports what a run imports and executes the same steps, by Dagster in process, on an instance
that lives in memory. The environment is a run's. The sources are the first ones with such a table.
"""

import argparse
import os


def main() -> None:
    """Make the tables."""
    import dagster as dg

    from gardener_api.config import load_config
    from gardener_dagster.definitions import defs
    from gardener_dagster.graph import joined_key, raw_key, tmp_key

    parser = argparse.ArgumentParser()
    parser.add_argument("date")
    parser.add_argument("tables", choices=["raw", "joined"])
    parser.add_argument("sources", type=int)
    options = parser.parse_args()
    job = defs().resolve_implicit_global_asset_job_def()
    sources = load_config(os.environ["GARDENER_CONFIG"]).sources
    if options.tables == "raw":
        keys = [k(source) for source in sources[: options.sources] for k in (tmp_key, raw_key)]
    else:
        joined = [key for source in sources if (key := joined_key(source))]
        keys = joined[: options.sources]
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(
            instance=instance, partition_key=options.date, asset_selection=keys
        )
    assert result.success
    os._exit(0)  # as a run's process ends: no module is taken down


if __name__ == "__main__":
    main()
