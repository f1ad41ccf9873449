"""Failures of runs and checks, told to a real server on this machine."""

import datetime as dt
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import dagster as dg
import pytest

from gardener_api.config import GardenerConfig
from gardener_dagster.assets.checks import CHECKS_ONLY, summed_up
from gardener_dagster.assets.keys import JOB_TAG, RANGE_END_TAG, RANGE_START_TAG
from gardener_dagster.automation.alerts import build_alerts
from gardener_dagster.automation.webhook import Alert, Webhook, WebhookError, slack_body
from gardener_dagster.planning.audits import Verdict

DATES = dg.DailyPartitionsDefinition("2024-01-01")
RAW = dg.AssetKey(["raw_ndt", "ndt7"])


class Hook:
    """A web hook: keeps what it takes."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.codes: list[int] = []  # to answer with, one after the other; then 200
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                code = hook.codes.pop(0) if hook.codes else 200
                if code == 200:
                    hook.taken.append(body)
                self.send_response(code)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/secret/path"

    def take(self) -> list[dict[str, Any]]:
        """What came since the last look."""
        taken, self.taken = self.taken, []
        return taken

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def hook() -> Iterator[Hook]:
    server = Hook()
    yield server
    server.close()


@pytest.fixture
def webhook(hook: Hook) -> Webhook:
    return Webhook.of(hook.url, dagster_url="https://dagster.example.org/")


@dg.asset(key=RAW, partitions_def=DATES)
def raw(context: dg.AssetExecutionContext) -> None:
    match context.run.tags.get("break"):
        case "failure":
            raise dg.Failure("copy raw_ndt.ndt7: No such field: x\ndo this\nand this")
        case "error":
            raise ValueError("in <b>\nbad")


@dg.asset_check(asset=RAW, blocking=True)
def unique_keys(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    passed = context.run.tags.get("break") != "unique_keys"
    return dg.AssetCheckResult(passed=passed, description="3 of 7 rows share their id")


@dg.asset_check(asset=RAW)
def rows(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=context.run.tags.get("break") != "rows",
        severity=dg.AssetCheckSeverity.WARN,
        description="fewer rows than last week",
    )


DEFS = dg.Definitions(assets=[raw], asset_checks=[unique_keys, rows])
JOB = DEFS.resolve_implicit_global_asset_job_def()

Run = Callable[..., str]
Tick = Callable[[str], str]


@pytest.fixture
def run(instance: dg.DagsterInstance) -> Run:
    """Runs the asset and its checks on a date; the run's id."""

    def run_(broken: str = "", date: str = "2024-03-01", **tags: str) -> str:
        result = JOB.execute_in_process(
            instance=instance,
            partition_key=date,
            asset_selection=[RAW],
            tags={"break": broken} | tags,
            raise_on_error=False,
        )
        return result.run_id

    return run_


@pytest.fixture
def tick(instance: dg.DagsterInstance, config: GardenerConfig, webhook: Webhook) -> Tick:
    """Ticks a sensor as the daemon does: the cursor moves only with a tick that ends well."""
    sensors = {sensor.name: sensor for sensor in build_alerts(config, webhook)}
    cursors: dict[str, str | None] = {}

    def tick_(name: str) -> str:
        context = dg.build_sensor_context(instance=instance, cursor=cursors.get(name))
        data = sensors[name].evaluate_tick(context)
        cursors[name] = data.cursor
        return data.skip_message or ""

    for name in sensors:
        tick_(name)
    return tick_


def test_nobody_to_tell(config: GardenerConfig) -> None:
    assert build_alerts(config, None) == []


def test_a_failed_run_is_told_once(run: Run, tick: Tick, hook: Hook) -> None:
    run()
    tick("run_failures")
    assert hook.take() == []
    run_id = run("failure", **{JOB_TAG: "archive/ndt/ndt7/20240301"})
    assert tick("run_failures") == "told 1 failures"
    assert hook.take() == [
        {
            "level": "error",
            "title": "archive/ndt/ndt7/20240301 failed, 2024-03-01",
            "job": "archive/ndt/ndt7/20240301",
            "date": "2024-03-01",
            "reason": "copy raw_ndt.ndt7: No such field: x\ndo this\nand this",
            "link": f"https://dagster.example.org/runs/{run_id}",
        }
    ]
    tick("run_failures")
    assert hook.take() == []


def test_a_range_of_one_date_is_told_as_that_date(
    instance: dg.DagsterInstance, tick: Tick, hook: Hook
) -> None:
    tick("run_failures")
    ends = {f"dagster/asset_partition_range_{end}": "2024-03-01" for end in ("start", "end")}
    JOB.execute_in_process(
        instance=instance,
        asset_selection=[RAW],
        tags={"break": "failure"} | ends,
        raise_on_error=False,
    )
    tick("run_failures")
    assert [alert["date"] for alert in hook.take()] == ["2024-03-01"]


def test_an_error_that_nobody_described(run: Run, tick: Tick, hook: Hook) -> None:
    run("error")
    tick("run_failures")
    [alert] = hook.take()
    assert alert["reason"].startswith("ValueError: in <b>\nbad")
    assert alert["job"] == "raw_ndt/ndt7"


def test_a_run_that_will_be_tried_again_is_not_told(run: Run, tick: Tick, hook: Hook) -> None:
    run("failure", **{"dagster/will_retry": "true"})
    tick("run_failures")
    assert hook.take() == []


def test_what_failed_before_the_first_tick_is_not_told(
    run: Run, instance: dg.DagsterInstance, config: GardenerConfig, webhook: Webhook, hook: Hook
) -> None:
    run("failure")
    [sensor, _] = build_alerts(config, webhook)
    first = sensor.evaluate_tick(dg.build_sensor_context(instance=instance))
    run("failure", date="2024-03-02")
    sensor.evaluate_tick(dg.build_sensor_context(instance=instance, cursor=first.cursor))
    assert [alert["date"] for alert in hook.take()] == ["2024-03-02"]


def test_a_failed_check_is_told_once(run: Run, tick: Tick, hook: Hook) -> None:
    run_id = run("rows")
    tick("run_failures")
    assert hook.take() == []
    tick("check_failures")
    tick("check_failures")
    assert hook.take() == [
        {
            "level": "warning",
            "title": "raw_ndt/ndt7: check rows failed, 2024-03-01",
            "job": "raw_ndt/ndt7",
            "date": "2024-03-01",
            "reason": "fewer rows than last week",
            "link": f"https://dagster.example.org/runs/{run_id}",
        }
    ]
    run()
    run("rows", date="2024-03-02")
    tick("check_failures")
    assert [alert["date"] for alert in hook.take()] == ["2024-03-02"]


def test_a_check_that_fails_its_run_is_told_as_a_check(run: Run, tick: Tick, hook: Hook) -> None:
    run("unique_keys")
    for name in ("run_failures", "check_failures"):
        tick(name)
    [alert] = hook.take()
    assert (alert["level"], alert["reason"]) == ("error", "3 of 7 rows share their id")


def test_a_check_of_many_dates_is_told_for_each_that_fails_and_the_rest_are_counted(
    instance: dg.DagsterInstance, tick: Tick, hook: Hook
) -> None:
    found = {
        dt.date(2024, 3, n): Verdict(passed=n > 7, warns=n != 2, description=f"date {n}")
        for n in range(1, 9)
    }

    @dg.multi_asset(
        specs=[dg.AssetSpec(RAW, partitions_def=DATES, skippable=True)],
        check_specs=[dg.AssetCheckSpec("rows", asset=RAW)],
    )
    def tables() -> Iterator[dg.AssetCheckResult]:
        yield summed_up(dg.AssetCheckKey(RAW, "rows"), found)

    ends = {RANGE_START_TAG: "2024-03-01", RANGE_END_TAG: "2024-03-08"}
    job = dg.Definitions(assets=[tables]).resolve_implicit_global_asset_job_def()
    job.execute_in_process(instance=instance, tags=ends)
    tick("check_failures")
    told = [(alert["level"], alert["date"], alert["reason"]) for alert in hook.take()]
    assert told == [
        ("warning", "2024-03-01", "date 1"),
        ("error", "2024-03-02", "date 2"),
        *(("warning", f"2024-03-0{n}", f"date {n}") for n in (3, 4, 5)),
        ("error", "2024-03-01 to 2024-03-08", "2 more dates of the run fail"),
    ]
    tick("check_failures")
    assert hook.take() == []


def test_a_run_that_failed_for_its_checks_alone_is_told_as_checks(
    instance: dg.DagsterInstance, tick: Tick, hook: Hook
) -> None:
    @dg.op
    def fails() -> None:
        raise dg.Failure("check unique_keys of raw_ndt.ndt7", metadata={CHECKS_ONLY: True})

    @dg.job
    def job() -> None:
        fails()

    job.execute_in_process(instance=instance, raise_on_error=False)
    tick("run_failures")
    assert hook.take() == []


def test_a_hook_that_is_down_is_told_later_and_once(run: Run, tick: Tick, hook: Hook) -> None:
    for day in (1, 2, 3):
        run("failure", date=f"2024-03-0{day}")
    hook.codes = [503]
    with pytest.raises(WebhookError, match=r"at 127\.0\.0\.1 answered 503"):
        tick("run_failures")
    hook.codes = [200, 429]
    tick("run_failures")
    assert [alert["date"] for alert in hook.take()] == ["2024-03-01"]
    tick("run_failures")
    tick("run_failures")
    assert [alert["date"] for alert in hook.take()] == ["2024-03-02", "2024-03-03"]


def test_two_alerts_of_one_run_are_told_once_each(
    instance: dg.DagsterInstance, tick: Tick, hook: Hook
) -> None:
    @dg.multi_asset_check(
        specs=[dg.AssetCheckSpec(name, asset=RAW) for name in ("one", "two", "three")]
    )
    def checks() -> Iterator[dg.AssetCheckResult]:
        for name in ("one", "two", "three"):
            yield dg.AssetCheckResult(check_name=name, passed=False, description=name)

    job = dg.Definitions(
        asset_checks=[checks], jobs=[dg.define_asset_job("j", dg.AssetSelection.checks(checks))]
    ).resolve_job_def("j")
    job.execute_in_process(instance=instance)
    hook.codes = [200, 500]
    tick("check_failures")
    assert [alert["reason"] for alert in hook.take()] == ["one"]
    tick("check_failures")
    assert [alert["reason"] for alert in hook.take()] == ["two", "three"]
    # They belong to no date: as long as they say the same, they are one failure.
    job.execute_in_process(instance=instance)
    tick("check_failures")
    assert hook.take() == []


def test_a_hook_that_nobody_listens_at(hook: Hook) -> None:
    hook.close()
    alert = Alert(level="error", title="t", job="j", date="", reason="", link="")
    with pytest.raises(WebhookError) as caught:
        Webhook.of(hook.url).send(alert)
    assert str(caught.value) == "the web hook at 127.0.0.1: ConnectionError"
    assert caught.value.__cause__ is None, "the cause has the address"


def test_on_a_storage_of_a_file_a_run(config: GardenerConfig, webhook: Webhook, hook: Hook) -> None:
    """Dagster's default, where a record's number within its run is not its number among all."""
    sensors = build_alerts(config, webhook)
    with dg.instance_for_test() as instance:
        cursors: list[str | None] = [None, None]
        for broken in ("", "failure", "rows", "unique_keys"):
            for i, sensor in enumerate(sensors):
                context = dg.build_sensor_context(instance=instance, cursor=cursors[i])
                cursors[i] = sensor.evaluate_tick(context).cursor
            JOB.execute_in_process(
                instance=instance,
                partition_key="2024-03-01",
                tags={"break": broken},
                raise_on_error=False,
            )
        for i, sensor in enumerate(sensors):
            sensor.evaluate_tick(dg.build_sensor_context(instance=instance, cursor=cursors[i]))
    assert [alert["reason"].splitlines()[0] for alert in hook.take()] == [
        "copy raw_ndt.ndt7: No such field: x",
        "fewer rows than last week",
        "3 of 7 rows share their id",
    ]


def test_slack() -> None:
    alert = Alert(
        level="error", title="a & b", job="a", date="", reason="<b>\nx", link="https://d/runs/1"
    )
    assert slack_body(alert) == {
        "text": "*a &amp; b*\n> &lt;b&gt;\n> x\n<https://d/runs/1|Open in Dagster>"
    }
    assert Webhook.of("https://hooks.slack.com/services/x").format == "slack"
    assert Webhook.of("https://chat.example.org/x", "slack").format == "slack"


@pytest.mark.parametrize(
    ("url", "format", "message"),
    [
        ("hooks.slack.com/x", "", "expected https://"),
        ("ftp://x/y", "", "expected https://"),
        ("https://x/y", "xml", "'xml': expected slack or json"),
    ],
)
def test_a_bad_hook(url: str, format: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Webhook.of(url, format)
