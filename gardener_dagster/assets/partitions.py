"""Dates as Dagster's partitions, and which partitions an asset reads. Nothing of jobs or tables."""

import datetime as dt

import dagster as dg


def daily_partitions(start_date: dt.date) -> dg.DailyPartitionsDefinition:
    """Return one partition per day, UTC, from the start date to yesterday."""
    return dg.DailyPartitionsDefinition(start_date=start_date.isoformat(), timezone="UTC")


def date_of(partition_key: str) -> dt.date:
    """Return the date of a partition key."""
    return dt.date.fromisoformat(partition_key)


def own_and_day_before() -> dg.PartitionMapping:
    """Map a join's date to the annotations of that date and of the day before, which it reads."""
    return dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=0)
