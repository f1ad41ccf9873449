"""``gardener demo`` and ``gardener dev``: the laptop stack."""

import datetime as dt
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from gardener_dagster.cli.options import Dates, read_config
from gardener_dagster.local import defaults
from gardener_dagster.local.stack.home import HomeError
from gardener_dagster.local.stack.ports import PREFERRED_PORTS, PortError
from gardener_dagster.local.stack.processes import PartFailedError


class PartPort(click.ParamType[tuple[str, int]]):
    """The port of a component of the stack, as ``NAME=NUMBER``."""

    name = "NAME=NUMBER"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """Return the component's name and its port."""
        if isinstance(value, tuple):
            return value
        name, _, number = str(value).partition("=")
        if name not in PREFERRED_PORTS:
            self.fail(f"{value!r}: expected one of {', '.join(PREFERRED_PORTS)}", param, ctx)
        if not number.isdecimal() or not 0 < int(number) < 2**16:
            self.fail(f"{value!r}: expected a port from 1 to 65535", param, ctx)
        return name, int(number)


ports_option = click.option(
    "--port",
    "ports",
    type=PartPort(),
    multiple=True,
    help="The port of a part, as dagster=3001; may stand more than once. A port that is in use is"
    " then an error. Without it, a part takes its usual port or, where that is in use, a free one,"
    " and says so. The usual ones: "
    + ", ".join(f"{name}={port}" for name, port in PREFERRED_PORTS.items())
    + ".",
)
stack_config_option = click.option(
    "--config",
    envvar="GARDENER_CONFIG",
    help="The configuration file.  [default: gardener.yml, or the package's where there is none]",
)
home_option = click.option(
    "--home",
    type=click.Path(path_type=Path),
    default=Path(".gardener"),
    show_default=True,
    help="The folder that holds all data.",
)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path())
def init(folder: Path) -> None:
    """Write the laptop's configuration files into FOLDER, to change them."""
    try:
        written = defaults.write_all(folder)
    except FileExistsError as error:
        raise click.ClickException(f"{error}: expected a folder without it") from error
    for path in written:
        click.echo(path)


@click.command()
@stack_config_option
@home_option
@ports_option
@click.option("--exit", "exit_after", is_flag=True, help="End when the dates are done.")
@click.option(
    "--archive",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A folder of archives, as in the bucket, in place of samples; needs --dates.",
)
@click.option("--dates", type=Dates(), help="First and last date of --archive.")
def demo(
    config: str | None,
    home: Path,
    exit_after: bool,
    archive: Path | None,
    dates: tuple[dt.date, dt.date] | None,
    ports: tuple[tuple[str, int], ...],
) -> None:
    """Take archives through the whole pipeline on this machine, without an account."""
    if (archive is None) != (dates is None):
        raise click.UsageError("--archive and --dates go together")
    from gardener_dagster.local.demo.demo import run_demo  # needs the extra `local`

    config_file = Path(config) if config else defaults.find("gardener.yml")
    read_config(str(config_file))
    with _stack_errors():
        sys.exit(
            run_demo(
                home=home,
                config_path=config_file,
                dagster_yaml=defaults.find("dagster.yaml"),
                archive=archive,
                dates=dates,
                exit_after=exit_after,
                ports=dict(ports),
            )
        )


@click.command()
@stack_config_option
@home_option
@ports_option
@click.option("--workers", default=1, show_default=True, help="Reference parsers to run.")
@click.option(
    "--faults",
    is_flag=True,
    help="The local BigQuery takes faults: see gardener_dagster/local/bigquery/faults.py.",
)
def dev(
    config: str | None, home: Path, ports: tuple[tuple[str, int], ...], workers: int, faults: bool
) -> None:
    """Run the stack on this machine, with whatever data it has, until Ctrl-C."""
    from gardener_dagster.local.demo.demo import run_dev  # needs the extra `local`

    config_file = Path(config) if config else defaults.find("gardener.yml")
    read_config(str(config_file))
    with _stack_errors():
        run_dev(
            home=home,
            config_path=config_file,
            dagster_yaml=defaults.find("dagster.yaml"),
            workers=workers,
            ports=dict(ports),
            faults=faults,
        )


@contextmanager
def _stack_errors() -> Iterator[None]:
    """Convert errors of the stack to ``ClickException``: no traceback."""
    try:
        yield
    except (HomeError, PartFailedError, PortError) as error:
        raise click.ClickException(str(error)) from error
