"""``gardener status``: what became of each date."""

import datetime as dt

import click

from gardener_dagster.cli.date_states import day_facts
from gardener_dagster.cli.job_store import (
    database_option,
    named_sources,
    open_store,
    source_option,
)
from gardener_dagster.cli.options import Dates, config_option, read_config
from gardener_dagster.planning.ranges import dates_between

ONE_DAY = dt.timedelta(days=1)


@click.command()
@config_option
@database_option
@source_option
@click.option("--dates", type=Dates(), help="First and last date.  [default: the last week]")
def status(
    config: str,
    database: str | None,
    names: tuple[str, ...],
    dates: tuple[dt.date, dt.date] | None,
) -> None:
    """Show what became of each date: its state, attempt, rows, and the error if it failed."""
    loaded = read_config(config)
    yesterday = dt.datetime.now(dt.UTC).date() - ONE_DAY
    first, last = dates or (yesterday - 6 * ONE_DAY, yesterday)
    with open_store(loaded, database) as store:
        for fact in day_facts(store, named_sources(loaded, names), dates_between(first, last)):
            click.echo(str(fact))
