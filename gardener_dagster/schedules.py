"""When the gardener starts work by the clock."""

import datetime as dt

import dagster as dg

from gardener_api.config import GardenerConfig
from gardener_dagster.graph import PRIORITY_TAG, parsed_key


def build_schedules(config: GardenerConfig) -> list[dg.ScheduleDefinition]:
    """The daily schedule: at 10:30 UTC it asks for the day before, of every source."""

    @dg.schedule(
        name="daily",
        cron_schedule="30 10 * * *",
        execution_timezone="UTC",
        target=dg.AssetSelection.assets(*map(parsed_key, config.sources)),
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Parses yesterday of every source; tables and joins follow by sensor.",
    )
    def daily(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        yesterday = context.scheduled_execution_time.astimezone(dt.UTC).date() - dt.timedelta(1)
        return dg.RunRequest(
            run_key=f"daily/{yesterday}",
            partition_key=yesterday.isoformat(),
            tags={PRIORITY_TAG: "daily"},
        )

    return [daily]
