"""``gardener api``: the sidecar."""

import click

from gardener_api.links import Links
from gardener_api.server.app import serve
from gardener_dagster import settings
from gardener_dagster.cli.job_store import database_option, may_migrate, store_errors
from gardener_dagster.cli.options import config_option, read_config


@click.command()
@config_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8080, show_default=True, help="Port of the jobs API.")
@click.option("--status-port", default=8081, show_default=True, help="Port of the status page.")
@click.option("--metrics-port", default=9090, show_default=True, help="Port of the metrics.")
@database_option
@click.option(
    "--dagster-url",
    envvar="GARDENER_DAGSTER_URL",
    help="Dagster's webserver, as browsers and the sidecar reach it: the status page links to it,"
    " and the sidecar reports to it what happens to jobs at parsers.",
)
@click.option(
    "--shutdown-timeout",
    default=20.0,
    show_default=True,
    help="Seconds that open calls get to be finished after SIGTERM.",
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
    try:
        links = Links(dagster_url=dagster_url or None, project=settings.console_project())
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    with store_errors():
        serve(
            config=read_config(config),
            store_url=settings.store_url(database),
            host=host,
            port=port,
            status_port=status_port,
            metrics_port=metrics_port,
            token=settings.api_token(),
            links=links,
            shutdown_timeout=shutdown_timeout,
            json_log=log_format == "json",
            may_migrate=may_migrate(),
        )
