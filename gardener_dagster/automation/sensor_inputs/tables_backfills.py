"""Which backfills of tables alone run, for their progress on the status page."""

import dagster as dg

from gardener_api.config import GardenerConfig
from gardener_api.store.store import JobStore
from gardener_api.store.tables.tables_backfills import TablesTarget
from gardener_dagster.assets.keys import parsed_key, table_keys
from gardener_dagster.assets.partitions import date_of
from gardener_dagster.dagster_internals import RequestedBackfill, requested_backfills


def note_tables_backfills(
    config: GardenerConfig,
    instance: dg.DagsterInstance,
    repository: dg.RepositoryDefinition,
    store: JobStore,
) -> None:
    """Record new backfills of tables alone in the job store, and delete those that are over."""
    requested = requested_backfills(instance, repository)
    known = store.tables_backfills.known()
    store.tables_backfills.forget(known - {backfill.id for backfill in requested})
    for backfill in requested:
        if backfill.id not in known and (targets := _targets(config, backfill)):
            store.tables_backfills.note(backfill.id, targets, began=backfill.began)


def _targets(config: GardenerConfig, backfill: RequestedBackfill) -> list[TablesTarget]:
    """Return the targets of a backfill, for the sources that it does not parse."""
    targets = []
    for source in config.sources:
        tables = [key for key in table_keys(source) if key in backfill.assets]
        if tables and parsed_key(source) not in backfill.assets:
            last = tables[-1]
            targets.append(
                TablesTarget(
                    source=source.name,
                    table=".".join(last.path),
                    dates=[date_of(partition) for partition in backfill.partitions(last)],
                )
            )
    return targets
