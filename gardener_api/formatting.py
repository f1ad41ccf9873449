"""Format durations, sizes, dates, counts and errors for people. Pure."""

import datetime as dt
from collections.abc import Iterable

_ONE_DAY = dt.timedelta(days=1)


def human_duration(duration: dt.timedelta) -> str:
    """Format a duration in its two largest units, without zeros: ``3 h 12 min``, ``1 h``."""
    seconds = max(0, int(duration.total_seconds()))
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = ((days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s"))
    largest = next((i for i, (n, _) in enumerate(units) if n), len(units) - 1)
    (first, unit), rest = units[largest], units[largest + 1 : largest + 2]
    return " ".join([f"{first} {unit}", *(f"{n} {unit}" for n, unit in rest if n)])


def human_bytes(size: int) -> str:
    """Format a size in bytes, in the largest fitting unit up to TB: ``1.2 GB``."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def spans(dates: Iterable[dt.date]) -> str:
    """Format dates, consecutive ones as a range: ``2024-03-01 to 2024-03-04, 2024-03-09``."""
    runs: list[list[dt.date]] = []
    for date in sorted(dates):
        if runs and date - runs[-1][-1] == _ONE_DAY:
            runs[-1].append(date)
        else:
            runs.append([date])
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]} to {r[-1]}" for r in runs)


def one_line(error: BaseException) -> str:
    """Return an error's message on one line; of an SQLAlchemy error, the driver's message."""
    cause = getattr(error, "orig", None) or error
    return " ".join(str(cause).split()).rstrip(".?")


def count_jobs(count: int) -> str:
    """Format a number of jobs: ``1 job``, ``1,234 jobs``."""
    return f"{count:,} {'job' if count == 1 else 'jobs'}"
