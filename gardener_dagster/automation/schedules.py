"""The schedules: what starts at a fixed time of the day."""

import datetime as dt

import dagster as dg

from gardener_api.config import GardenerConfig
from gardener_api.jobs.job import Priority
from gardener_api.store.store import JobStore
from gardener_dagster.assets.keys import PRIORITY_TAG, parsed_key
from gardener_dagster.automation.run_requests import RUNS_PER_TICK, parse_request, unfinished
from gardener_dagster.planning.daily import ONE_DAY, days_due, newest_due, recent_dates


def build_schedules(config: GardenerConfig) -> list[dg.ScheduleDefinition]:
    """Build the daily schedule: at 10:30 UTC it requests the day before for every source."""

    @dg.schedule(
        name="daily",
        # At 10:30, then hourly for dates that could not be requested before.
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
        dates = recent_dates(config, config.daily.catch_up_days, now=now)
        if not dates:
            return dg.SkipReason(
                f"{newest_due(now)} and before are no partitions: start_date in the configuration"
                f" is {config.start_date}"
            )
        due = days_due(
            config,
            now=now,
            asked=job_store.days.last_asked(dates[0] - ONE_DAY),
            first_daily=job_store.days.first_daily(),
            on_their_way=set(unfinished(context.instance, {PRIORITY_TAG: "daily"})),
        )
        if not due:
            return dg.SkipReason(f"every source was asked for {newest_due(now)} and before")
        if len(due) > RUNS_PER_TICK:
            context.log.warning(
                f"{len(due)} runs are due: asks for the {RUNS_PER_TICK} of the newest dates now,"
                " and for the others in its next ticks"
            )
        return [
            parse_request(
                run.sources,
                run.first,
                run.last,
                # Contains the tick's time: a repeated tick requests no run twice.
                run_key=f"daily/{run.first}/{now:%Y%m%dT%H%M}",
                priority=Priority.DAILY,
                tags={},
            )
            for run in due[-RUNS_PER_TICK:]
        ]

    return [daily]
