"""The ``gardener`` command. It reads options and the environment, and calls what does the work."""

import datetime as dt
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gardener_api.config import ConfigError, GardenerConfig, Source, load_config

if TYPE_CHECKING:
    from gardener_api.store import JobStore

ONE_DAY = dt.timedelta(days=1)


class Dates(click.ParamType[tuple[dt.date, dt.date]]):
    """``A:B``, both included, or one date."""

    name = "A:B"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[dt.date, dt.date]:
        """Returns the first and the last date."""
        if isinstance(value, tuple):
            return value
        first, _, last = str(value).partition(":")
        try:
            span = dt.date.fromisoformat(first), dt.date.fromisoformat(last or first)
        except ValueError:
            self.fail(f"{value!r}: expected dates like 2024-03-01:2024-03-03", param, ctx)
        if span[0] > span[1]:
            self.fail(f"{value!r}: expected the earlier date first", param, ctx)
        return span


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gardener")
def main() -> None:
    """M-Lab's gardener: hands archives to parsers and takes the results into BigQuery."""


def _config(path: str) -> GardenerConfig:
    try:
        return load_config(path)
    except ConfigError as error:
        raise click.ClickException(str(error)) from error


config_option = click.option(
    "--config",
    envvar="GARDENER_CONFIG",
    default="gardener.yml",
    show_default=True,
    help="The configuration file.",
)


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


def _database(url: str | None) -> str:
    return url or f"sqlite:///{os.environ.get('DAGSTER_HOME', '.')}/gardener.db"


def _sources(config: GardenerConfig, names: tuple[str, ...]) -> tuple[Source, ...]:
    from gardener_dagster.commands import chosen_sources

    try:
        return chosen_sources(config, names)
    except KeyError as error:
        raise click.ClickException(str(error.args[0])) from error


@contextmanager
def _store(config: GardenerConfig, url: str | None) -> "Iterator[JobStore]":
    """The store that is there: to look at one must not make one."""
    from gardener_api.store import JobStore, StoreError

    address = _database(url)
    file = address.removeprefix("sqlite:///")
    if file != address and not Path(file).exists():
        raise click.ClickException(
            f"there is no job store {file}: expected DAGSTER_HOME or GARDENER_DATABASE_URL to name"
            " the sidecar's"
        )
    tracker = config.tracker
    try:
        store = JobStore.open(address, lease=tracker.timeout, max_attempts=tracker.max_attempts)
    except StoreError as error:
        raise click.ClickException(str(error)) from error
    try:
        yield store
    finally:
        store.close()


@main.command()
@config_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8080, show_default=True, help="Port of the jobs API.")
@click.option("--status-port", default=8081, show_default=True, help="Port of the status page.")
@click.option("--metrics-port", default=9090, show_default=True, help="Port of the metrics.")
@database_option
@click.option(
    "--dagster-url",
    envvar="GARDENER_DAGSTER_URL",
    help="Dagster's UI, as browsers reach it: the status page links to it.",
)
@click.option(
    "--shutdown-timeout",
    default=20.0,
    show_default=True,
    help="Seconds that open calls get to be finished when it is told to end.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How a line of the log looks.",
)
def api(
    config: str,
    host: str,
    port: int,
    status_port: int,
    metrics_port: int,
    database: str | None,
    dagster_url: str | None,
    shutdown_timeout: float,
    log_format: str,
) -> None:
    """Run the sidecar: the jobs API for parsers, the status page, the metrics."""
    from gardener_api.app import serve
    from gardener_api.links import Links
    from gardener_api.store import StoreError

    # The tables of a local stack are not in Google's console.
    local = os.environ.get("BIGQUERY_EMULATOR_HOST")
    project = None if local else os.environ.get("GARDENER_PROJECT")
    try:
        links = Links(dagster_url=dagster_url or None, project=project or None)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    try:
        serve(
            config=_config(config),
            store_url=_database(database),
            host=host,
            port=port,
            status_port=status_port,
            metrics_port=metrics_port,
            token=os.environ.get("GARDENER_API_TOKEN") or None,
            links=links,
            shutdown_timeout=shutdown_timeout,
            json_log=log_format == "json",
        )
    except StoreError as error:
        raise click.ClickException(str(error)) from error


@main.command("code-server")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=4000, show_default=True, help="Port, as workspace.yaml names it.")
def code_server(host: str, port: int) -> None:
    """Run Dagster's code server: it has the definitions, and starts the runs."""
    from gardener_dagster.code_server import serve
    from gardener_dagster.definitions import defs

    try:
        defs()
        serve(host=host, port=port)
    except (ConfigError, ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error


@main.command()
@click.option(
    "-w",
    "--workspace",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False),
    default=["workspace.yaml"],
    show_default=True,
    help="A file that names the code server.",
)
def daemon(workspace: tuple[str, ...]) -> None:
    """Run Dagster's daemons: schedules, sensors, the run queue; backfills in a process apart."""
    from dagster import DagsterError

    from gardener_dagster.daemon import DaemonEndedError, run

    try:
        run(workspace)
    except (DaemonEndedError, DagsterError) as error:
        raise click.ClickException(str(error)) from error


@main.command()
@click.option(
    "--api", "api_url", default="http://127.0.0.1:8080", show_default=True, help="The jobs API."
)
@click.option(
    "--output",
    envvar="GARDENER_INPUT_LOCATION",
    required=True,
    help="The bucket to write to: what the gardener loads from.",
)
@click.option("--poll", default=1.0, show_default=True, help="Seconds between asking for jobs.")
@click.option("--threads", default=2, show_default=True, help="Archives parsed at once.")
def worker(api_url: str, output: str, poll: float, threads: int) -> None:
    """Run the reference parser: ndt7, annotation2 and hopannotation2."""
    from gardener_dagster.local.parser.worker import run_worker

    run_worker(
        api_url,
        output_bucket=output,
        poll_seconds=poll,
        threads=threads,
        token=os.environ.get("GARDENER_API_TOKEN") or None,
    )


@main.command()
@config_option
@database_option
@source_option
@click.option("--dates", type=Dates(), required=True, help="First and last date, both included.")
@click.option("--tables-only", is_flag=True, help="Load what is parsed again; no parser works.")
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
    dates: tuple[dt.date, dt.date],
    tables_only: bool,
    wait: bool,
    dagster_url: str,
) -> None:
    """Process dates again, as "Launch backfill" in Dagster's UI does.

    Asks parsers for the dates; tables and joins follow. With --wait it fails if a date did.
    """
    import requests

    from gardener_dagster.commands import follow_backfill, launch_backfill
    from gardener_dagster.local.dagster_client import DagsterClient, DagsterError

    loaded = _config(config)
    sources = _sources(loaded, names)
    dagster = DagsterClient(url=dagster_url.rstrip("/"))
    try:
        # What it waits with is opened first: without a store nothing is asked for.
        with _store(loaded, database) if wait else nullcontext() as store:
            backfill_id = launch_backfill(dagster, sources, *dates, tables_only=tables_only)
            click.echo(f"backfill {backfill_id}: {dagster.backfill_url(backfill_id)}")
            good = store is None or follow_backfill(
                dagster, backfill_id, store, sources, *dates, echo=click.echo
            )
        sys.exit(0 if good else 1)
    except DagsterError as error:
        raise click.ClickException(f"Dagster refused: {error}") from error
    except requests.RequestException as error:
        raise click.ClickException(
            f"{dagster_url} does not answer as Dagster's webserver: {error}"
        ) from error


@main.command()
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
    from gardener_dagster.commands import day_facts

    loaded = _config(config)
    yesterday = dt.datetime.now(dt.UTC).date() - ONE_DAY
    first, last = dates or (yesterday - 6 * ONE_DAY, yesterday)
    with _store(loaded, database) as store:
        for fact in day_facts(store, _sources(loaded, names), first, last):
            click.echo(str(fact))


home_option = click.option(
    "--home",
    type=click.Path(path_type=Path),
    default=Path(".gardener"),
    show_default=True,
    help="The folder that holds all data.",
)


@main.command()
@config_option
@home_option
@click.option("--exit", "exit_after", is_flag=True, help="End when the dates are done.")
@click.option(
    "--archive",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A folder of archives, as in the bucket, in place of samples; needs --dates.",
)
@click.option("--dates", type=Dates(), help="First and last date of --archive.")
def demo(
    config: str,
    home: Path,
    exit_after: bool,
    archive: Path | None,
    dates: tuple[dt.date, dt.date] | None,
) -> None:
    """Take archives through the whole pipeline on this machine, without an account."""
    if (archive is None) != (dates is None):
        raise click.UsageError("--archive and --dates go together")
    from gardener_dagster.local.demo import run_demo
    from gardener_dagster.local.processes import PartFailedError

    _config(config)
    try:
        sys.exit(
            run_demo(
                home=home,
                config_path=Path(config),
                archive=archive,
                dates=dates,
                exit_after=exit_after,
            )
        )
    except PartFailedError as error:
        raise click.ClickException(str(error)) from error


@main.command()
@config_option
@home_option
@click.option("--workers", default=1, show_default=True, help="Reference parsers to run.")
@click.option(
    "--faults",
    is_flag=True,
    help="The local BigQuery takes faults: see gardener_dagster/local/bigquery/faults.py.",
)
def dev(config: str, home: Path, workers: int, faults: bool) -> None:
    """Run the stack on this machine, with whatever data it has, until Ctrl-C."""
    from gardener_dagster.local.demo import run_dev
    from gardener_dagster.local.processes import PartFailedError

    _config(config)
    try:
        run_dev(home=home, config_path=Path(config), workers=workers, faults=faults)
    except PartFailedError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
