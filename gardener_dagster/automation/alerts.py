"""The sensors that send failures of runs and of checks to a web hook.

Both read the end events of runs; the cursor moves past an event only when its alerts were sent. So
failed deliveries are repeated at the next tick, and no alert is sent twice, unless the daemon dies
between the hook's answer and the end of the tick. (Dagster's ``run_failure_sensor`` skips failed
deliveries.) Failures before the sensor's first tick are not sent.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

import dagster as dg
from dagster import DagsterEventType, EventLogRecord, RunStatusChangeRecordsFilter

from gardener_api.config import GardenerConfig
from gardener_dagster.assets.checks import CHECKS_ONLY, FAILING
from gardener_dagster.assets.keys import JOB_TAG
from gardener_dagster.automation.run_requests import minimum_interval
from gardener_dagster.automation.webhook import Alert, Webhook, WebhookError

AT_ONCE = 200
"""Maximum number of end events per tick."""
TICK_SECONDS = 30.0
"""Limit for starting alerts: Dagster aborts a tick after a minute; its alerts are sent again."""
DATES_TOLD = 5
"""Maximum number of dates per check and run with their own alert; one more counts the others."""
REASON_LINES = 5
REASON_CHARACTERS = 1_000
_RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
_FAILED_CHECK = "DagsterAssetCheckFailedError"
_WILL_RETRY = "dagster/will_retry"

End = Literal[DagsterEventType.RUN_SUCCESS, DagsterEventType.RUN_FAILURE]
Failing = Mapping[str, str]


@dataclass
class Cursor:
    """The position of a sensor in the end events of runs.

    Attributes:
        after: storage id of the last end event whose alerts were all sent.
        told: number of alerts of the next end event that were sent.
        failing: failing checks without a date, each with its last description.
    """

    after: int
    told: int = 0
    failing: Failing = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Parse the output of ``str``."""
        return cls(**json.loads(text))

    def __str__(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Ended:
    """A run that ended, with its end event."""

    instance: dg.DagsterInstance
    run: dg.DagsterRun
    event: dg.DagsterEvent


AlertsOf = Callable[[Ended, Webhook, Failing], tuple[list[Alert], Failing]]
"""Return the alerts of an end event, in a fixed order, and the new value of ``Cursor.failing``."""


def build_alerts(config: GardenerConfig, webhook: Webhook | None) -> list[dg.SensorDefinition]:
    """Build both sensors; none if no web hook is configured."""
    if webhook is None:
        return []
    interval = minimum_interval(config.monitor.polling_interval)
    failed: End = DagsterEventType.RUN_FAILURE
    succeeded: End = DagsterEventType.RUN_SUCCESS
    return [
        _sensor("run_failures", [failed], run_alerts, webhook, interval),
        _sensor("check_failures", [succeeded, failed], check_alerts, webhook, interval),
    ]


def _sensor(
    name: str,
    ends: Sequence[End],
    alerts_of: AlertsOf,
    webhook: Webhook,
    interval: int,
) -> dg.SensorDefinition:
    @dg.sensor(
        name=name,
        minimum_interval_seconds=interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"{alerts_of.__doc__} By {webhook.format} to the web hook.",
    )
    def tell(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        if context.cursor is None:
            cursor = Cursor(after=_newest_end(context.instance, ends))
            return dg.SensorResult(cursor=str(cursor), skip_reason="begins with the next failure")
        cursor = Cursor.parse(context.cursor)
        try:
            told = _tell(context.instance, webhook, cursor, ends, alerts_of)
        except WebhookError as error:
            if str(cursor) == context.cursor:
                raise  # the tick fails, and the next one starts at the same event
            context.log.error(f"{error}; the rest is sent at the next tick")
            told = "some failures"
        return dg.SensorResult(cursor=str(cursor), skip_reason=f"told {told}")

    return tell


def _tell(
    instance: dg.DagsterInstance,
    webhook: Webhook,
    cursor: Cursor,
    ends: Sequence[End],
    alerts_of: AlertsOf,
) -> str:
    """Send the alerts of new end events; advance the cursor after each delivered alert."""
    told = 0
    deadline = time.monotonic() + TICK_SECONDS
    for record in _ends(instance, ends, after=cursor.after):
        run = instance.get_run_by_id(record.run_id)
        event = record.event_log_entry.dagster_event
        alerts: list[Alert] = []
        failing = cursor.failing
        if run is not None and event is not None:
            alerts, failing = alerts_of(Ended(instance, run, event), webhook, cursor.failing)
        for alert in alerts[cursor.told :]:
            if time.monotonic() > deadline:
                return f"{told} failures; more at the next tick"
            webhook.send(alert)
            cursor.told += 1
            told += 1
        cursor.after, cursor.told, cursor.failing = record.storage_id, 0, failing
    return f"{told} failures"


def _ends(instance: dg.DagsterInstance, ends: Sequence[End], *, after: int) -> list[EventLogRecord]:
    """Return the first ``AT_ONCE`` end events after a storage id, the oldest first."""
    found: list[EventLogRecord] = []
    for event_type in ends:
        of_type = RunStatusChangeRecordsFilter(event_type=event_type, after_storage_id=after)
        found += instance.fetch_run_status_changes(of_type, limit=AT_ONCE, ascending=True).records
    return sorted(found, key=lambda record: record.storage_id)[:AT_ONCE]


def _newest_end(instance: dg.DagsterInstance, ends: Sequence[End]) -> int:
    """Return the storage id of the newest end event; -1 if there is none."""
    newest = [instance.fetch_run_status_changes(of_type, limit=1).records for of_type in ends]
    return max((record.storage_id for records in newest for record in records), default=-1)


def run_alerts(ended: Ended, webhook: Webhook, failing: Failing) -> tuple[list[Alert], Failing]:
    """Tells of each run that failed and will not be tried again."""
    if ended.run.tags.get(_WILL_RETRY) == "true":
        return [], failing
    reason = _reason(ended)
    if reason is None:
        return [], failing
    job = _job(ended.run)
    alert = Alert(
        level="error",
        title=f"{job} failed{_of(_date(ended.run))}",
        job=job,
        date=_date(ended.run),
        reason=reason,
        link=webhook.run_link(ended.run.run_id),
    )
    return [alert], failing


def check_alerts(ended: Ended, webhook: Webhook, failing: Failing) -> tuple[list[Alert], Failing]:
    """Tells of each check that failed; of one that no date belongs to, once until it passes."""
    alerts = []
    still = dict(failing)
    for evaluation in _evaluations(ended):
        check, said = evaluation.asset_check_key.to_user_string(), evaluation.description or ""
        before = still.pop(check, None)
        if evaluation.passed:
            continue
        dated = evaluation.partition or _date(ended.run)
        if not dated:
            still[check] = said
        if dated or before != said:
            alerts += _check_alerts(evaluation, ended.run, webhook)
    return alerts, still


def _check_alerts(
    evaluation: dg.AssetCheckEvaluation, run: dg.DagsterRun, webhook: Webhook
) -> list[Alert]:
    """Return an alert for each of the first failing dates; a last one counts the rest."""
    failing = _failing_dates(evaluation)
    told = failing[:DATES_TOLD]
    alerts = [
        _check_alert(
            evaluation,
            run,
            webhook,
            date=str(entry["date"]),
            level="error" if entry["severity"] == "error" else "warning",
            reason=str(entry["description"]),
        )
        for entry in told
    ]
    more = len(failing) - len(told)
    if more or not failing:
        error = evaluation.severity == dg.AssetCheckSeverity.ERROR
        alerts.append(
            _check_alert(
                evaluation,
                run,
                webhook,
                date=evaluation.partition or _date(run),
                level="error" if error else "warning",
                reason=f"{more} more dates of the run fail"
                if more
                else evaluation.description or "the check gave no reason",
            )
        )
    return alerts


def _failing_dates(evaluation: dg.AssetCheckEvaluation) -> list[dict[str, object]]:
    value = evaluation.metadata.get(FAILING)
    named = value.data if isinstance(value, dg.JsonMetadataValue) else None
    return named if isinstance(named, list) else []


def _check_alert(
    evaluation: dg.AssetCheckEvaluation,
    run: dg.DagsterRun,
    webhook: Webhook,
    *,
    date: str,
    level: Literal["error", "warning"],
    reason: str,
) -> Alert:
    asset = evaluation.asset_key.to_user_string()
    return Alert(
        level=level,
        title=f"{asset}: check {evaluation.check_name} failed{_of(date)}",
        job=asset,
        date=date,
        reason=_short(reason),
        link=webhook.run_link(run.run_id),
    )


def _evaluations(ended: Ended) -> Iterator[dg.AssetCheckEvaluation]:
    connection = ended.instance.get_records_for_run(
        ended.run.run_id, of_type=DagsterEventType.ASSET_CHECK_EVALUATION
    )
    for record in connection.records:
        event = record.event_log_entry.dagster_event
        if event and isinstance(event.event_specific_data, dg.AssetCheckEvaluation):
            yield event.event_specific_data


def _reason(ended: Ended) -> str | None:
    """Return why a run failed; ``None`` if only checks failed: those have their own alert."""
    connection = ended.instance.get_records_for_run(
        ended.run.run_id, of_type=DagsterEventType.STEP_FAILURE
    )
    events = [record.event_log_entry.dagster_event for record in connection.records]
    failures = [event for event in events if event and event.is_step_failure]
    others = [failure for failure in failures if not _is_check(failure)]
    if others:
        return _short(_said(others[0]))
    if failures:
        return None
    data = ended.event.job_failure_data if ended.event.event_specific_data else None
    error = data.error if data else None
    return _short(error.message if error else ended.event.message or "no reason given")


def _is_check(event: dg.DagsterEvent) -> bool:
    failure = event.step_failure_data
    if failure.user_failure_data and CHECKS_ONLY in failure.user_failure_data.metadata:
        return True
    return failure.error is not None and failure.error.cls_name == _FAILED_CHECK


def _said(event: dg.DagsterEvent) -> str:
    failure = event.step_failure_data
    if failure.user_failure_data and failure.user_failure_data.description:
        return failure.user_failure_data.description
    if failure.error is None:
        return "no reason given"
    return (failure.error.cause or failure.error).message


def _job(run: dg.DagsterRun) -> str:
    """Return the job whose tables a run makes; else its assets; else its Dagster job."""
    if JOB_TAG in run.tags:
        return run.tags[JOB_TAG]
    names = sorted(key.to_user_string() for key in run.asset_selection or ())
    if not names:
        return run.job_name
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _date(run: dg.DagsterRun) -> str:
    first, last = (run.tags.get(tag, "") for tag in _RANGE)
    several = f"{first} to {last}" if first != last else first
    return run.tags.get("dagster/partition", "") or several


def _of(date: str) -> str:
    return f", {date}" if date else ""


def _short(text: str) -> str:
    lines = text.strip().splitlines()
    kept = "\n".join(lines[:REASON_LINES])[:REASON_CHARACTERS]
    return kept + "\n…" if len(kept) < len(text.strip()) else kept
