"""``gardener diff``: compare two versions of dates of tables."""

import datetime as dt
import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import click

from gardener_api.config import GardenerConfig, Source
from gardener_api.formatting import human_bytes
from gardener_dagster import settings
from gardener_dagster.assets.keys import source_tables
from gardener_dagster.cli.job_store import named_sources, source_option
from gardener_dagster.cli.options import Dates, DurationOption, config_option, read_config
from gardener_dagster.resources import WarehouseResource
from gardener_dagster.warehouse.engine import Engine, Settings
from gardener_dagster.warehouse.errors import WarehouseError
from gardener_dagster.warehouse.operations.diff import Comparison
from gardener_dagster.warehouse.results import (
    BqJob,
    ColumnDiff,
    DifferingRow,
    KeyDiff,
    TableVersion,
)

SHOWN = 60
"""Maximum number of characters shown of a value."""
_COUNTS = {
    "rows before": "rows_before",
    "rows after": "rows_after",
    "ids in both": "in_both",
    "added": "added",
    "removed": "removed",
    "no id before": "keyless_before",
    "no id after": "keyless_after",
}


@click.command()
@config_option
@source_option
@click.option("--dates", type=Dates(), required=True, help="First and last date, both included.")
@click.option(
    "--against",
    metavar="DATASET",
    help="Compare the raw table with the table of the same name in this dataset.",
)
@click.option(
    "--before",
    "ago",
    type=DurationOption(),
    help="Compare the raw table with itself so long ago, like 1h; at most seven days.",
)
@click.option(
    "--columns",
    metavar="COLUMN,…",
    help='Compare these columns too, like a,raw.Download; "*": all but parser.',
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def diff(
    config: str,
    names: tuple[str, ...],
    dates: tuple[dt.date, dt.date],
    against: str | None,
    ago: dt.timedelta | None,
    columns: str | None,
    as_json: bool,
) -> None:
    """Compare dates of tables: by the keys of their rows, and by columns.

    Compares what is published, the raw table, with what would replace it, the tmp table. With
    --against or --before it compares another dataset, or the past, with what is published. Reads
    the key's columns, and those named.
    """
    if against and ago:
        raise click.UsageError("--against and --before: expected only one of them")
    loaded = read_config(config)
    found: list[dict[str, Any]] = []
    try:
        with _engine(loaded) as engine:
            for source in named_sources(loaded, names):
                comparison = _comparison(engine, source, dates, against=against, ago=ago)
                difference = _compare(comparison, columns.split(",") if columns else [])
                if as_json:
                    found.append({"source": source.name, **difference.values(comparison)})
                else:
                    click.echo("\n".join(difference.lines(source.name, comparison)))
    except (WarehouseError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(json.dumps(found, default=str, indent=2))


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The result of a comparison."""

    keys: "list[KeyDiff]"
    columns: "list[ColumnDiff]"
    examples: "list[DifferingRow]"
    jobs: "list[BqJob]"

    def values(self, of: Comparison) -> dict[str, Any]:
        """Return the fields of the JSON output."""
        by_columns = {
            "columns": [asdict(each) for each in self.columns],
            "examples": [asdict(each) for each in self.examples],
        }
        return {
            "before": str(of.before),
            "after": str(of.after),
            "dates": [asdict(each) | {"same": each.same} for each in self.keys],
            **(by_columns if self.columns else {}),
            "bytes_processed": sum(job.bytes_processed for job in self.jobs),
        }

    def lines(self, source: str, of: Comparison) -> Iterator[str]:
        """Yield the lines of the text output."""
        yield f"{source}: {of.before} (before), {of.after} (after)"
        counts = [[getattr(each, name) for name in _COUNTS.values()] for each in self.keys]
        rows = [
            [str(each.date), *(f"{n:,}" for n in numbers), "same" if each.same else "differs"]
            for each, numbers in zip(self.keys, counts, strict=True)
        ]
        if len(rows) > 1:
            rows.append(["total", *(f"{sum(each):,}" for each in zip(*counts, strict=True)), ""])
        yield from _table([["date", *_COUNTS, "rows by id"], *rows])
        if self.columns:
            yield from self._column_lines()
        size = sum(job.bytes_processed for job in self.jobs)
        yield f"  read {human_bytes(size)}"

    def _column_lines(self) -> Iterator[str]:
        yield "  rows whose id stands once in each, by columns:"
        yield from _table(
            [["date", "compared", "differ", "in which columns"]]
            + [
                [
                    str(each.date),
                    f"{each.compared:,}",
                    f"{each.differing:,}",
                    ", ".join(f"{name}: {count:,}" for name, count in each.columns.items()),
                ]
                for each in self.columns
            ]
        )
        for example in self.examples:
            yield f"  for example {example.date} {' '.join(example.key)}"
            for name, (before, after) in example.columns.items():
                yield f"    {name}: {_cut(before)} → {_cut(after)}"


def _compare(comparison: Comparison, columns: Sequence[str]) -> Difference:
    keys, job = comparison.keys()
    if not columns:
        return Difference(keys=keys, columns=[], examples=[], jobs=[job])
    by_columns, examples, jobs = comparison.columns(columns)
    return Difference(keys=keys, columns=by_columns, examples=examples, jobs=[job, *jobs])


def _comparison(
    engine: Engine,
    source: Source,
    dates: tuple[dt.date, dt.date],
    *,
    against: str | None,
    ago: dt.timedelta | None,
) -> Comparison:

    raw = TableVersion(table=source.raw_table)
    if against:
        before, after = TableVersion(table=f"{against}.{source.datatype}"), raw
    elif ago:
        then = dt.datetime.now(dt.UTC) - ago
        before, after = TableVersion(table=source.raw_table, as_of=then), raw
    else:
        before, after = raw, TableVersion(table=source.tmp_table)
    return Comparison(
        engine=engine,
        source=source_tables(source),
        key=source.dedup_key,
        before=before,
        after=after,
        first=dates[0],
        last=dates[1],
        run_id=f"gardener-diff-{uuid.uuid4().hex[:12]}",
    )


@contextmanager
def _engine(config: GardenerConfig) -> Iterator[Engine]:
    """Open a BigQuery engine that runs queries with interactive priority."""
    location = config.bigquery.location
    resource = WarehouseResource(project=settings.project(), location=location or None)
    with resource.get_client() as client:
        try:
            yield Engine(
                client,
                Settings(
                    project=settings.project(),
                    location=location,
                    priority="INTERACTIVE",
                    maximum_bytes_billed=config.bigquery.maximum_bytes_billed,
                ),
            )
        finally:
            client.close()


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Align rows as text: first and last column to the left, others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    last = len(widths) - 1
    for row in rows:
        cells = [
            cell.ljust(width) if i in (0, last) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield f"  {'  '.join(cells)}".rstrip()


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
