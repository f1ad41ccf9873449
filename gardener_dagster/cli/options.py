"""Options and arguments that several of the ``gardener`` commands have."""

import datetime as dt

import click

from gardener_api.config import ConfigError, GardenerConfig, load_config
from gardener_api.config_values import parse_duration
from gardener_dagster.planning.backfills import OlderThan


class Dates(click.ParamType[tuple[dt.date, dt.date]]):
    """A range of dates ``A:B``, both included, or one date."""

    name = "A:B"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[dt.date, dt.date]:
        """Return the first and the last date."""
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


class OlderThanOption(click.ParamType[OlderThan]):
    """A version of the parser, or a day."""

    name = "VERSION|DATE"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> OlderThan:
        """Return the version or day that dates must be older than."""
        if isinstance(value, OlderThan):
            return value
        try:
            return OlderThan.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class DurationOption(click.ParamType[dt.timedelta]):
    """A duration as in the configuration, like ``1h30m``."""

    name = "DURATION"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> dt.timedelta:
        """Return the duration."""
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


def read_config(path: str) -> GardenerConfig:
    """Read the configuration; an invalid one ends the command."""
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
