"""One process that makes the tables of one date and no more: what the steps cost at the least.

    python tests/support/floor.py 2024-01-01 raw|joined

It imports what a run imports and executes the same steps, by Dagster in process, on an instance
that lives in memory. The environment is a run's. Prints CPU-seconds: imports, definitions, steps.
"""

import argparse
import os
import time


def main() -> None:
    """Make the tables."""
    begun = time.process_time()
    import dagster as dg

    from gardener_api.config import load_config
    from gardener_dagster.definitions import defs
    from gardener_dagster.graph import joined_key, raw_key, tmp_key

    imported = time.process_time()
    parser = argparse.ArgumentParser()
    parser.add_argument("date")
    parser.add_argument("tables", choices=["raw", "joined"])
    options = parser.parse_args()
    definitions = defs()
    job = definitions.resolve_implicit_global_asset_job_def()
    defined = time.process_time()
    sources = load_config(os.environ["GARDENER_CONFIG"]).sources
    if options.tables == "raw":
        keys = [key(source) for source in sources for key in (tmp_key, raw_key)]
    else:
        keys = [key for source in sources if (key := joined_key(source))]
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(
            instance=instance, partition_key=options.date, asset_selection=keys
        )
    assert result.success
    parts = {"imports": imported - begun, "definitions": defined - imported}
    parts["steps"] = time.process_time() - defined
    print(", ".join(f"{name} {seconds:.2f}" for name, seconds in parts.items()), flush=True)
    os._exit(0)  # as a run's process ends: no module is taken down


if __name__ == "__main__":
    main()
