"""What the demo shows in the terminal: progress, and at the end the table and the faults."""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence

from rich.table import Table

from gardener_api.jobs.job import Job, JobState
from gardener_dagster.local.demo.results import Counts, Landed

_STYLES = {
    JobState.COMPLETE: "green",
    JobState.FAILED: "bold red",
    JobState.WITHDRAWN: "red",
    JobState.QUEUED: "dim",
}


def progress_table(
    sources: Sequence[str],
    dates: Sequence[dt.date],
    jobs: Mapping[tuple[str, dt.date], Job | None],
    *,
    now: dt.datetime,
) -> Table:
    """Return a table of each job's stage and time in it: a row per date, a column per source."""
    table = Table(title="Jobs", title_justify="left")
    table.add_column("date")
    for source in sources:
        table.add_column(source, min_width=24)
    for date in dates:
        cells = [_stage(jobs[source, date], now) for source in sources]
        table.add_row(date.isoformat(), *cells)
    return table


def _stage(job: Job | None, now: dt.datetime) -> str:
    if job is None:
        return "[dim]not asked for yet[/]"
    style = _STYLES.get(job.state, "yellow")
    since = (
        "" if job.state is JobState.COMPLETE else f" {(now - job.entered).total_seconds():.0f} s"
    )
    return f"[{style}]{job.state}[/][dim]{since}[/]"


def results_table(landed: Iterable[Landed]) -> Table:
    """Return a table of the row counts: one row per date and source."""
    table = Table(title="What landed where", title_justify="left")
    for name in ("date", "datatype", "archives", "rows loaded", "duplicates removed", "raw rows",
                 "joined rows", "share annotated", "seconds"):  # fmt: skip
        text = name in ("date", "datatype")
        table.add_column(name, justify="left" if text else "right", no_wrap=text)
    for row in landed:
        counts = row.counts
        table.add_row(
            row.job.key.date.isoformat(),
            row.source,
            f"{counts.archives:,}",
            f"{counts.rows_loaded:,}",
            f"{counts.duplicates_removed:,}",
            f"{counts.raw_rows:,}",
            "" if counts.joined_rows is None else f"{counts.joined_rows:,}",
            _share(counts),
            f"{row.seconds:.0f}",
        )
    return table


def _share(counts: Counts) -> str:
    if counts.joined_rows is None or counts.annotated_rows is None:
        return ""
    return f"{counts.annotated_rows / counts.joined_rows:.1%}" if counts.joined_rows else "no rows"


def faults(landed: Iterable[Landed], expected: Mapping[tuple[str, dt.date], Counts]) -> list[str]:
    """Return a message for each job that is not complete and for each unexpected count."""
    lines = []
    for row in landed:
        date = row.job.key.date
        if row.job.state is not JobState.COMPLETE:
            lines.append(f"{row.job.id}: {row.job.state}: {row.job.error or row.job.detail}")
        if row.counts.joined_rows not in (None, row.counts.raw_rows):
            lines.append(
                f"{row.job.id}: {row.counts.joined_rows} joined rows of {row.counts.raw_rows} raw"
            )
        want = expected.get((row.source, date))
        if want is not None and row.counts != want:
            lines.append(f"{row.job.id}: expected {want}, found {row.counts}")
    return lines
