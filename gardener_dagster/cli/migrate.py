"""``gardener migrate``: make the job store, or bring it to this version."""

import click

from gardener_api.store.engine import writing
from gardener_api.store.migrate import migrate as migrate_store
from gardener_api.store.schema import NEWEST
from gardener_dagster import settings
from gardener_dagster.cli.job_store import database_option, open_database, store_errors


@click.command()
@database_option
def migrate(database: str | None) -> None:
    """Make the job store, or bring it to the version of this gardener.

    One transaction. Running it again changes nothing.
    """
    with store_errors(), open_database(settings.store_url(database)) as engine:
        before = migrate_store(writing(engine))
        where = engine.url.render_as_string(hide_password=True)
    if before == NEWEST:
        click.echo(f"{where}: version {NEWEST} already; nothing was changed")
    else:
        was = f"migrated from version {before}" if before else "made"
        click.echo(f"{where}: {was}; it is of version {NEWEST} now")
