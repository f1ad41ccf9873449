"""``gardener accept`` and ``gardener reject``: decide about partitions that audits hold."""

import datetime as dt
import getpass
import sys
from collections.abc import Callable
from typing import Any

import click

from gardener_api.audit_rules import DEFAULT_RULES
from gardener_api.store.publishing.held import Decision, HeldPartition
from gardener_api.store.store import JobStore
from gardener_dagster.cli.job_store import database_option, named_sources, open_store
from gardener_dagster.cli.options import Dates, config_option, read_config

Ranges = tuple[tuple[dt.date, dt.date], ...]
EXIT_CODES = """\b
Exit codes:
  0  the decision is recorded for each partition that waited for one
  1  no decision was recorded: nothing waited for one, or there was an error
  2  the command line is wrong
"""


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that both commands share."""
    for option in (
        click.option("--by", default=_user, help="Who decides.  [default: the user of this shell]"),
        click.option("--reason", default="", help="Why; it is kept in the job's history."),
        click.option(
            "--dates",
            "ranges",
            type=Dates(),
            required=True,
            multiple=True,
            help="First and last date, both included; may stand more than once.",
        ),
        click.option(
            "--source",
            "names",
            required=True,
            multiple=True,
            metavar="EXPERIMENT/DATATYPE",
            help="A source; may stand more than once.",
        ),
        database_option,
        config_option,
    ):
        command = option(command)
    return command


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"


@click.command(epilog=EXIT_CODES)
@_options
@click.option(
    "--audit",
    "audits",
    type=click.Choice(list(DEFAULT_RULES)),
    multiple=True,
    help="Only this audit; may stand more than once.  [default: all that hold the partition]",
)
def accept(audits: tuple[str, ...], **options: Any) -> None:  # noqa: ANN401 - click's
    """Publish held partitions: exactly the rows that were audited.

    Records the decision; the sensor "decisions" then starts a run for each partition. Rows that
    take their place before are audited anew.
    """
    _decide("accept", audits=audits, **options)


@click.command(epilog=EXIT_CODES)
@_options
def reject(**options: Any) -> None:  # noqa: ANN401 - click's
    """Drop held partitions: the published ones stay as they are.

    Records the decision; the sensor "decisions" then starts a run that deletes the rows from tmp.
    """
    _decide("reject", audits=(), **options)


def _decide(
    what: str,
    *,
    audits: tuple[str, ...],
    config: str,
    database: str | None,
    names: tuple[str, ...],
    ranges: Ranges,
    by: str,
    reason: str,
) -> None:
    loaded = read_config(config)
    sources = {source.name for source in named_sources(loaded, names)}
    with open_store(loaded, database) as store:
        waiting = [
            held
            for held in store.held.waiting()
            if held.key.source in sources and _is_in(held.key.date, ranges)
        ]
        decided = [_decided(store, held, what, audits, by=by, reason=reason) for held in waiting]
    if not waiting:
        click.echo("No partition of these waits for a decision.", err=True)
    if not any(decided):
        sys.exit(1)


def _decided(
    store: JobStore,
    held: HeldPartition,
    what: str,
    audits: tuple[str, ...],
    *,
    by: str,
    reason: str,
) -> bool:

    name = f"{held.key.source} {held.key.date} {held.table}"
    holding = [finding.audit for finding in held.findings]
    chosen = [audit for audit in holding if audit in audits or not audits]
    if not chosen:
        click.echo(f"{name}: left alone, since it is held by {', '.join(holding)}")
        return False
    now = dt.datetime.now(dt.UTC)
    done = store.held.decide(
        held.number, Decision(what), by=by, reason=reason, audits=chosen, now=now
    )
    if done is None:
        click.echo(f"{name}: somebody else has decided")
        return False
    click.echo(f"{name}: {what}ed by {by}")
    for finding in held.findings:
        mark = f"{what}ed" if finding.audit in chosen else "still holds"
        click.echo(f"  {mark}: {finding.audit}: {finding.description}")
    return True


def _is_in(date: dt.date, ranges: Ranges) -> bool:
    return any(first <= date <= last for first, last in ranges)
