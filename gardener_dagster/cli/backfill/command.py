"""``gardener backfill``: process dates again."""

import datetime as dt
import sys
from collections.abc import Sequence
from contextlib import ExitStack

import click
import requests

from gardener_api.config import GardenerConfig, Source
from gardener_api.store.store import JobStore
from gardener_dagster.cli.backfill.follow import Asked, follow_backfills
from gardener_dagster.cli.backfill.reading import (
    read_capacity,
    read_records,
    targets_of,
    wanted_of,
)
from gardener_dagster.cli.job_store import (
    database_option,
    named_sources,
    open_store,
    source_option,
)
from gardener_dagster.cli.options import Dates, OlderThanOption, config_option, read_config
from gardener_dagster.dagster_client import DagsterClient, DagsterError, RunningBackfill
from gardener_dagster.planning.backfill_costs import estimate
from gardener_dagster.planning.backfills import BackfillPlan, OlderThan, Selection, plan_backfill
from gardener_dagster.planning.ranges import dates_between

DATES_LEFT_OUT = 3
"""Exit code of ``gardener backfill``."""
BACKFILL_EXIT_CODES = """\b
Exit codes:
  0  all dates were asked for; with --wait: and all are complete
  1  nothing was asked for, because of an error; with --wait: or a date failed
  2  the command line is wrong
  3  dates were left out; the others, if any, were asked for
Dates that --missing, --failed or --older-than skip are not left out.
"""


@click.command(epilog=BACKFILL_EXIT_CODES)
@config_option
@database_option
@source_option
@click.option(
    "--dates",
    "ranges",
    type=Dates(),
    required=True,
    multiple=True,
    help="First and last date, both included; may stand more than once.",
)
@click.option("--missing", is_flag=True, help="Only dates that were never made.")
@click.option("--failed", is_flag=True, help="Only dates whose newest job failed.")
@click.option(
    "--older-than",
    type=OlderThanOption(),
    help="Only dates that an older version of the parser made, or that were parsed before a day.",
)
@click.option("--tables-only", is_flag=True, help="Load what is parsed again; no parser works.")
@click.option("--plan", "only_plan", is_flag=True, help="Print the plan, and ask for nothing.")
@click.option("--wait", is_flag=True, help="Until all dates have ended; print what became of each.")
@click.option(
    "--dagster-url",
    envvar="GARDENER_DAGSTER_URL",
    default="http://127.0.0.1:3000",
    show_default=True,
    help="Dagster's webserver.",
)
def backfill(
    config: str,
    database: str | None,
    names: tuple[str, ...],
    ranges: tuple[tuple[dt.date, dt.date], ...],
    missing: bool,
    failed: bool,
    older_than: OlderThan | None,
    tables_only: bool,
    only_plan: bool,
    wait: bool,
    dagster_url: str,
) -> None:
    """Process dates again, as "Launch backfill" in Dagster's UI does.

    Asks parsers for the dates; tables and joins follow. Prints first which dates of which assets
    will be made, which are left out and why, and what it will cost: there are partitions from
    start_date to yesterday (UTC).

    With --missing, --failed or --older-than, which may stand together, only such dates are made,
    and none that is on its way already: the same command, repeated, does what is still to do.
    """
    loaded = read_config(config)
    sources = named_sources(loaded, names)
    dates = [date for first, last in ranges for date in dates_between(first, last)]
    selection = Selection(missing=missing, failed=failed, older_than=older_than)
    dagster = DagsterClient(url=dagster_url.rstrip("/"))
    with ExitStack() as stack:
        # Open the store first: if it is needed and missing, no backfill is launched.
        store: JobStore | None = None
        try:
            store = stack.enter_context(open_store(loaded, database))
        except click.ClickException as error:
            if only_plan or wait or selection:
                raise
            click.echo(f"What it will cost is not known: {error.message}", err=True)
        try:
            running = dagster.running_backfills() if selection else []
            plan = _print_plan(
                loaded, sources, dates, selection, store, running, tables_only=tables_only
            )
            if not any(source.dates for source in plan.sources):
                click.echo("Nothing is asked for.", err=True)
            elif not only_plan and not _launch(plan, sources, dagster, store if wait else None):
                sys.exit(1)
        except DagsterError as error:
            raise click.ClickException(f"Dagster refused: {error}") from error
        except requests.RequestException as error:
            raise click.ClickException(
                f"{dagster_url} does not answer as Dagster's webserver: {error}"
            ) from error
    sys.exit(DATES_LEFT_OUT if plan.left_out else 0)


def _print_plan(
    config: GardenerConfig,
    sources: Sequence[Source],
    dates: Sequence[dt.date],
    selection: Selection,
    store: JobStore | None,
    running: Sequence[RunningBackfill],
    *,
    tables_only: bool,
) -> BackfillPlan:

    now = dt.datetime.now(dt.UTC)
    records = read_records(store, sources, dates) if store is not None else {}
    plan = plan_backfill(
        wanted_of(sources, tables_only=tables_only),
        dates,
        start_date=config.start_date,
        today=now.date(),
        selection=selection,
        records=records,
        targets=targets_of(sources, running),
    )
    for line in plan.lines():
        click.echo(line)
    if store is not None and any(source.dates for source in plan.sources):
        cost = estimate(plan, records, parses=not tables_only)
        for line in cost.lines(read_capacity(store, now=now)):
            click.echo(line)
    return plan


def _launch(
    plan: BackfillPlan,
    sources: Sequence[Source],
    dagster: DagsterClient,
    store: JobStore | None,
) -> bool:
    """Launch a backfill for each set of dates; if a store is given, wait until they have ended.

    Returns:
        Whether all backfills and dates succeeded; without a store, always true.
    """
    by_name = {source.name: source for source in sources}
    asked: dict[str, Asked] = {}
    for dates, plans in plan.groups().items():
        assets = [asset for each in plans for asset in each.wanted.assets]
        backfill_id = dagster.backfill(assets, dates)
        click.echo(f"backfill {backfill_id}: {dagster.backfill_url(backfill_id)}")
        asked[backfill_id] = ([by_name[each.wanted.name] for each in plans], dates)
    return store is None or follow_backfills(dagster, asked, store, echo=click.echo)
