"""``gardener import-state``: take over the old gardener's jobs."""

import datetime as dt
from collections import Counter
from pathlib import Path

import click

from gardener_api.jobs.parser_calls import LeasePolicy
from gardener_api.jobs.saved_state import SavedStateError, read_saved_state
from gardener_api.store.engine import writing
from gardener_api.store.migrate import prepare
from gardener_api.store.state_import import Imported, import_jobs
from gardener_dagster.cli.job_store import (
    database_option,
    existing_store_url,
    open_database,
    store_errors,
)
from gardener_dagster.cli.options import config_option, read_config


@click.command("import-state")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@config_option
@database_option
@click.option("--dry-run", is_flag=True, help="Say what would be imported; change nothing.")
def import_state(file: Path, config: str, database: str | None, dry_run: bool) -> None:
    """Import the jobs of the old gardener from FILE, its saved state (JSON).

    A parser that holds a job keeps it, under the same ID. What was parsed gets its tables. What had
    failed is listed. Jobs that the store has already are left as they are, so that the command can
    be repeated. With an error in FILE nothing is imported.
    """
    loaded, now = read_config(config), dt.datetime.now(dt.UTC)
    tracker = loaded.tracker
    try:
        saved = read_saved_state(file, loaded, lease=tracker.timeout, now=now)
    except SavedStateError as error:
        raise click.ClickException(str(error)) from error
    policy = LeasePolicy(lease=tracker.timeout, max_attempts=tracker.max_attempts)
    with store_errors(), open_database(existing_store_url(database)) as engine:
        prepare(writing(engine), may_migrate=False)
        imported = import_jobs(engine, saved, policy=policy, now=now, dry_run=dry_run)
    for item in imported:
        click.echo(_line(item))
    new = Counter(item.is_new for item in imported)
    verb = "would be imported" if dry_run else "imported"
    click.echo(f"{new[True]} jobs {verb}, {new[False]} were in the store already")


def _line(item: Imported) -> str:
    job = item.job
    if not item.is_new:
        return f"{job.key}: {item.saved}: left out, the store has a job of this key"
    now = f"{job.state} in {job.failed_in}" if job.failed_in else str(job.state)
    attempt = f", attempt {job.attempt}" if job.attempt > 1 else ""
    return f"{job.key}: {item.saved} -> {now}{attempt}{f': {job.error}' if job.error else ''}"
