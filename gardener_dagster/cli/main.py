"""The ``gardener`` command: the group, with every command in it."""

import click

from gardener_dagster.cli.api import api
from gardener_dagster.cli.backfill.command import backfill
from gardener_dagster.cli.diff import diff
from gardener_dagster.cli.held import accept, reject
from gardener_dagster.cli.import_state import import_state
from gardener_dagster.cli.migrate import migrate
from gardener_dagster.cli.stack import demo, dev, init
from gardener_dagster.cli.status import status
from gardener_dagster.cli.worker import worker


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gardener")
def main() -> None:
    """M-Lab's gardener: hands archives to parsers and takes the results into BigQuery."""


main.add_command(api)
main.add_command(worker)
main.add_command(backfill)
main.add_command(status)
main.add_command(diff)
main.add_command(init)
main.add_command(accept)
main.add_command(reject)
main.add_command(demo)
main.add_command(dev)
main.add_command(migrate)
main.add_command(import_state)

if __name__ == "__main__":
    main()
