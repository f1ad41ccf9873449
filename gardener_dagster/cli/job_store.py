"""Options and helpers of the commands that read the job store."""

from collections.abc import Iterator
from contextlib import contextmanager

import click
from sqlalchemy.engine import Engine

from gardener_api.config import GardenerConfig, Source
from gardener_api.store.engine import open_engine, store_file
from gardener_api.store.schema import StoreError
from gardener_api.store.store import JobStore
from gardener_dagster import settings

database_option = click.option(
    "--database",
    envvar="GARDENER_DATABASE_URL",
    help="SQLAlchemy URL of the job store.  [default: SQLite under DAGSTER_HOME]",
)
source_option = click.option(
    "--source",
    "names",
    multiple=True,
    metavar="EXPERIMENT/DATATYPE",
    help="A source; may stand more than once.  [default: all]",
)


def named_sources(config: GardenerConfig, names: tuple[str, ...]) -> tuple[Source, ...]:
    """Return the named sources, or all without names; an unknown name ends the command."""
    try:
        return tuple(map(config.source, names)) if names else config.sources
    except KeyError as error:
        raise click.ClickException(str(error.args[0])) from error


@contextmanager
def store_errors() -> Iterator[None]:
    """Convert errors of the store or its settings to ``ClickException``: no traceback."""
    try:
        yield
    except StoreError as error:
        raise click.ClickException(str(error)) from error


def may_migrate() -> bool:
    """Whether a command may create or migrate the store; an invalid setting ends the command."""
    try:
        return settings.may_migrate()
    except ValueError as error:
        raise click.ClickException(str(error)) from error


def existing_store_url(url: str | None) -> str:
    """Return the URL of the job store; a SQLite file that is missing ends the command.

    Raises:
        StoreError: The URL is not a database URL.
    """
    address = settings.store_url(url)
    file = store_file(address)
    if file is not None and not file.exists():
        raise click.ClickException(
            f"there is no job store {file}: expected DAGSTER_HOME or GARDENER_DATABASE_URL to"
            " name the sidecar's"
        )
    return address


@contextmanager
def open_store(config: GardenerConfig, url: str | None) -> Iterator[JobStore]:
    """Open the existing job store; a missing one is an error, and is not created."""
    tracker = config.tracker
    with store_errors():
        store = JobStore.open(
            existing_store_url(url),
            lease=tracker.timeout,
            max_attempts=tracker.max_attempts,
            may_migrate=may_migrate(),
        )
    try:
        yield store
    finally:
        store.close()


@contextmanager
def open_database(url: str) -> Iterator[Engine]:
    """Open the database of a job store, whatever its version is."""
    engine = open_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()
