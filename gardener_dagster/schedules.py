"""When the gardener starts work by the clock."""

import datetime as dt

import dagster as dg

from gardener_api.config import GardenerConfig
from gardener_api.jobs import Priority
from gardener_api.store import JobStore
from gardener_dagster.daily import days_due, newest_due
from gardener_dagster.graph import PRIORITY_TAG, parsed_key
from gardener_dagster.runs import parse_request, unfinished


def build_schedules(config: GardenerConfig) -> list[dg.ScheduleDefinition]:
    """The daily schedule: at 10:30 UTC it asks for the day before, of every source."""

    @dg.schedule(
        name="daily",
        # At 10:30; and later on for what could not be asked for then.
        cron_schedule="30 10-23 * * *",
        execution_timezone="UTC",
        target=dg.AssetSelection.assets(*map(parsed_key, config.sources)),
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=(
            "At 10:30 it parses yesterday of every source, and days that were missed; each hour"
            " after, what could not be asked for. Tables and joins follow by sensor."
        ),
    )
    def daily(
        context: dg.ScheduleEvaluationContext, job_store: dg.ResourceParam[JobStore]
    ) -> list[dg.RunRequest] | dg.SkipReason:
        now = context.scheduled_execution_time.astimezone(dt.UTC)
        since = newest_due(now) - dt.timedelta(days=config.daily.catch_up_days)
        due = days_due(
            config,
            now=now,
            asked=job_store.days.last_asked(since),
            first_daily=job_store.days.first_daily(),
            on_their_way=set(unfinished(context.instance, {PRIORITY_TAG: "daily"})),
        )
        if not due:
            return dg.SkipReason(f"every source was asked for {newest_due(now)} and before")
        return [
            parse_request(
                run.sources,
                run.first,
                run.last,
                # The tick's: one that is done over asks for nothing twice.
                run_key=f"daily/{run.first}/{now:%Y%m%dT%H%M}",
                priority=Priority.DAILY,
                tags={},
            )
            for run in due
        ]

    return [daily]
