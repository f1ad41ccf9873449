"""How often a sensor looks. What it looks for is the sensor's."""

import datetime as dt


def seconds_between(interval: dt.timedelta) -> int:
    """What a sensor tells Dagster, so that its ticks are that far apart: a second less.

    Dagster looks every 5 s which sensors are due, and takes the time since a tick began, which is a
    hair after the look: of ticks to be 5 s apart, every other one was 10 s after the last.
    """
    return max(1, round(interval.total_seconds()) - 1)
