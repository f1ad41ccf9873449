"""The ``gardener`` command: the group, with every command in it."""

from importlib import import_module

import click

COMMANDS = {
    "api": "api:api",
    "worker": "worker:worker",
    "backfill": "backfill.command:backfill",
    "status": "status:status",
    "diff": "diff:diff",
    "init": "stack:init",
    "accept": "held:accept",
    "reject": "held:reject",
    "demo": "stack:demo",
    "dev": "stack:dev",
    "migrate": "migrate:migrate",
    "import-state": "import_state:import_state",
}
"""The module of each command in this package, and the command's name in the module."""


class Commands(click.Group):
    """Import a command's module only when the command is used: the sidecar needs no Dagster."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        del ctx
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of that name, if there is one."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(f"gardener_dagster.cli.{module}"), name)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gardener")
def main() -> None:
    """M-Lab's gardener: hands archives to parsers and takes the results into BigQuery."""


if __name__ == "__main__":
    main()
