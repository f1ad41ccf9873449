"""Dates as Dagster's partitions, and which partitions an asset reads. Nothing of jobs or tables."""

import datetime as dt

import dagster as dg


def daily_partitions(start_date: dt.date) -> dg.DailyPartitionsDefinition:
    """One partition a day, UTC, from the start of the history to yesterday."""
    return dg.DailyPartitionsDefinition(start_date=start_date.isoformat(), timezone="UTC")


def date_of(partition_key: str) -> dt.date:
    """The date a partition key stands for."""
    return dt.date.fromisoformat(partition_key)


def own_and_day_before() -> dg.PartitionMapping:
    """What a join reads of the annotations: a test's may stand in the archive of the day before."""
    return dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=0)
