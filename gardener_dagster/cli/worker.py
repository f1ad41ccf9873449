"""``gardener worker``: the reference parser."""

import click

from gardener_dagster import settings
from gardener_dagster.local.parser.worker import run_worker


@click.command()
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
    run_worker(
        api_url,
        output_bucket=output,
        poll_seconds=poll,
        threads=threads,
        token=settings.api_token(),
    )
