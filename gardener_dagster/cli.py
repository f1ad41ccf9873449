"""The ``gardener`` command. It reads options and the environment, and calls what does the work."""

import datetime as dt
import os
import sys
from pathlib import Path

import click

from gardener_api.config import ConfigError, GardenerConfig, load_config

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


@main.command()
@config_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8080, show_default=True, help="Port of the jobs API.")
@click.option("--status-port", default=8081, show_default=True, help="Port of the status page.")
@click.option("--metrics-port", default=9090, show_default=True, help="Port of the metrics.")
@click.option(
    "--database",
    envvar="GARDENER_DATABASE_URL",
    help="SQLAlchemy URL of the job store.  [default: SQLite under DAGSTER_HOME]",
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
    shutdown_timeout: float,
    log_format: str,
) -> None:
    """Run the sidecar: the jobs API for parsers, the status page, the metrics."""
    from gardener_api.app import serve
    from gardener_api.store import StoreError

    home = os.environ.get("DAGSTER_HOME", ".")
    try:
        serve(
            config=_config(config),
            store_url=database or f"sqlite:///{home}/gardener.db",
            host=host,
            port=port,
            status_port=status_port,
            metrics_port=metrics_port,
            token=os.environ.get("GARDENER_API_TOKEN") or None,
            shutdown_timeout=shutdown_timeout,
            json_log=log_format == "json",
        )
    except StoreError as error:
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
def dev(config: str, home: Path, workers: int) -> None:
    """Run the stack on this machine, with whatever data it has, until Ctrl-C."""
    from gardener_dagster.local.demo import run_dev
    from gardener_dagster.local.processes import PartFailedError

    _config(config)
    try:
        run_dev(home=home, config_path=Path(config), workers=workers)
    except PartFailedError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
