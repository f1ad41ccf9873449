"""What is kept of the states of asset checks is what Dagster works out from all of history."""

import datetime as dt
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import AssetCheckKey
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster_instance import instance_in

from gardener_dagster import check_states
from gardener_dagster.check_states import SETTLED, CheckStates
from gardener_dagster.event_log import OpenEventLog
from gardener_dagster.kept_states import KeptStates, folder_of

DATE, LATER = "2024-03-01", "2024-03-02"
BROKEN = "the check itself fails"
PASSED: dict[str, bool | str | None] = {DATE: True, LATER: True}
DAYS = dg.DailyPartitionsDefinition(DATE)


@dg.asset(partitions_def=DAYS)
def table() -> None:
    """An asset."""


with warnings.catch_warnings():
    warnings.simplefilter("ignore", dg.PreviewWarning)  # checks with partitions, as ours

    @dg.asset_check(asset=table, partitions_def=DAYS)
    def whole(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        """A check of each date."""
        passed = PASSED[context.partition_key]
        if passed == BROKEN:
            raise ValueError(BROKEN)
        return dg.AssetCheckResult(passed=bool(passed))


@dg.asset_check(asset="report")
def fresh() -> dg.AssetCheckResult:
    """A check without partitions."""
    return dg.AssetCheckResult(passed=bool(PASSED[DATE]))


@dg.asset
def report() -> None:
    """An asset without partitions."""


[WHOLE] = whole.check_keys
[FRESH] = fresh.check_keys
KEYS: Sequence[tuple[AssetCheckKey, dg.PartitionsDefinition[str] | None]] = [
    (WHOLE, DAYS),
    (FRESH, None),
]
States = dict[str, dict[str, list[str] | bool]]


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with instance_in(tmp_path) as instance:
        yield instance


@pytest.fixture
def own(instance: dg.DagsterInstance, tmp_path: Path) -> Iterator[SqliteEventLogStorage]:
    """Dagster's, on the same files."""
    with dg.DagsterInstance.from_ref(instance.get_ref()) as other:
        storage = DagsterSqliteStorage.from_local(str(tmp_path)).event_log_storage
        assert type(storage) is SqliteEventLogStorage
        storage.register_instance(other)
        yield storage


@pytest.fixture
def elsewhere(instance: dg.DagsterInstance) -> Iterator[dg.DagsterInstance]:
    """The same instance, as another process has it."""
    with dg.DagsterInstance.from_ref(instance.get_ref()) as other:
        yield other


def run_it(instance: dg.DagsterInstance, date: str, *, checked: bool = True) -> str:
    definitions = dg.Definitions(assets=[table], asset_checks=[whole] if checked else [])
    job = definitions.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(
        instance=instance, partition_key=date, raise_on_error=False
    ).run_id


def make_report(instance: dg.DagsterInstance) -> None:
    definitions = dg.Definitions(assets=[report], asset_checks=[fresh])
    definitions.resolve_implicit_global_asset_job_def().execute_in_process(instance=instance)


def log(instance: dg.DagsterInstance) -> OpenEventLog:
    found = instance.event_log_storage
    assert isinstance(found, OpenEventLog)
    return found


def readable(found: Any) -> States:
    """Of each check the partitions, or that there is none, by status."""
    return {
        key.name: {
            status.value: (
                sorted(subset.subset_value.get_partition_keys()) if subset.is_partitioned else True
            )
            for status, subset in state.subsets.items()
            if not subset.is_empty
        }
        for key, state in found.items()
    }


def states(storage: SqliteEventLogStorage) -> States:
    return readable(storage.get_asset_check_state(KEYS))


def states_later(instance: dg.DagsterInstance, checks: CheckStates | None = None) -> States:
    """As a process that is new sees them, when all that was written is settled."""
    later = dt.datetime.now(dt.UTC) + 2 * SETTLED
    return readable((checks or CheckStates(log(instance))).of(KEYS, instance, now=later))


@pytest.fixture
def asked(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The partitions that Dagster's storage is asked about; None: all."""
    asked: list[Any] = []
    ask = log(instance).get_asset_check_partition_info

    def listening(keys: Sequence[AssetCheckKey], **how: Any) -> Any:
        asked.append(how.get("partition_keys"))
        return ask(keys, **how)

    monkeypatch.setattr(log(instance), "get_asset_check_partition_info", listening)
    return asked


def test_the_state_of_a_check_is_what_dagster_works_out(
    instance: dg.DagsterInstance,
    elsewhere: dg.DagsterInstance,
    own: SqliteEventLogStorage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage = log(instance)
    seen = [states(storage)["whole"]]
    for date, good in (
        (DATE, True), (LATER, False), (DATE, False), (LATER, True), (DATE, None),
        (DATE, BROKEN), (DATE, True), (DATE, None), (LATER, False),
    ):  # fmt: skip
        monkeypatch.setitem(PASSED, date, good)
        run_it(instance, date, checked=good is not None)
        assert states(storage) == states(log(elsewhere)) == states(own)
        assert states_later(elsewhere) == states(own)
        seen.append(states(storage)["whole"])
    assert seen == [
        {},
        {"SUCCEEDED": [DATE]},
        {"SUCCEEDED": [DATE], "FAILED": [LATER]},
        {"FAILED": [DATE, LATER]},
        {"SUCCEEDED": [LATER], "FAILED": [DATE]},
        {"SUCCEEDED": [LATER]},  # made anew, and not looked at since
        {"SUCCEEDED": [LATER], "EXECUTION_FAILED": [DATE]},
        {"SUCCEEDED": [DATE, LATER]},
        {"SUCCEEDED": [LATER]},
        {"FAILED": [LATER]},
    ]


def test_a_check_without_partitions(
    instance: dg.DagsterInstance, own: SqliteEventLogStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for good in (True, False, True):
        monkeypatch.setitem(PASSED, DATE, good)
        make_report(instance)
        assert states_later(instance) == states(own)
        assert states_later(instance)["fresh"] == {"SUCCEEDED" if good else "FAILED": True}


def test_only_what_has_changed_is_asked_for(
    instance: dg.DagsterInstance, elsewhere: dg.DagsterInstance, asked: list[Any]
) -> None:
    for date in (DATE, LATER):
        run_it(instance, date)
    before = states_later(instance)
    assert asked == [None]  # for the first time: from all of history
    asked.clear()
    assert states_later(instance) == before
    assert asked == []
    run_it(elsewhere, LATER)
    states_later(instance)
    assert asked == [[LATER]]
    states_later(instance)
    assert asked == [[LATER]]


def test_from_many_partitions_on_all_are_asked_for(
    instance: dg.DagsterInstance,
    own: SqliteEventLogStorage,
    asked: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(check_states, "MANY", 2)
    run_it(instance, DATE)
    states_later(instance)
    for number in range(3):
        date = (dt.date.fromisoformat(DATE) + dt.timedelta(number)).isoformat()
        instance.report_runless_asset_event(dg.AssetMaterialization(table.key, partition=date))
    assert states_later(instance) == states(own)
    assert asked == [None, None]


def test_a_state_moves_on_with_what_happens_to_others(
    instance: dg.DagsterInstance,
    own: SqliteEventLogStorage,
    asked: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(check_states, "FAR_BEHIND", 4)
    run_it(instance, DATE)
    states_later(instance)
    for _ in range(5):
        instance.report_runless_asset_event(dg.AssetMaterialization("something else"))
    assert states_later(instance) == states(own)
    kept = KeptStates().read(instance, folder_of(instance), KEYS)
    newest = log(instance).get_maximum_record_id()
    assert {state.latest_storage_id for state in kept.values()} == {newest}
    assert asked == [None]


def test_what_is_being_written_is_looked_at_again(
    instance: dg.DagsterInstance,
    elsewhere: dg.DagsterInstance,
    own: SqliteEventLogStorage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_it(instance, DATE)
    storage, write = log(instance), log(elsewhere).store_asset_check_event
    between = []

    def look_first(event: dg.EventLogEntry, event_id: int | None) -> None:
        between.append(states(storage))  # the event is there, and what it says of the check is not
        write(event, event_id)

    monkeypatch.setattr(log(elsewhere), "store_asset_check_event", look_first)
    run_it(elsewhere, LATER)
    assert between
    assert states(storage) == states(own)
    assert states(storage)["whole"] == {"SUCCEEDED": [DATE, LATER]}


@pytest.mark.parametrize(
    ("end", "status"),
    [("report_run_failed", "EXECUTION_FAILED"), ("report_run_canceled", "SKIPPED")],
)
def test_a_check_goes_on_until_its_run_ends(
    instance: dg.DagsterInstance,
    elsewhere: dg.DagsterInstance,
    own: SqliteEventLogStorage,
    asked: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    end: str,
    status: str,
) -> None:
    run_it(instance, DATE)
    definitions = dg.Definitions(assets=[table], asset_checks=[whole])
    job = definitions.resolve_implicit_global_asset_job_def()
    run = instance.create_run_for_job(job, tags={"dagster/partition": LATER})
    before = {"SUCCEEDED": [DATE], "IN_PROGRESS": [LATER]}
    assert states_later(instance)["whole"] == states(own)["whole"] == before
    asked.clear()
    assert states_later(instance)["whole"] == before
    assert asked == []

    write = elsewhere.run_storage.handle_run_event
    between = []

    def look_first(*of: Any, **how: Any) -> None:
        between.append(states(log(instance))["whole"])  # the event is there, its run still goes on
        write(*of, **how)

    monkeypatch.setattr(elsewhere.run_storage, "handle_run_event", look_first)
    getattr(elsewhere, end)(run)
    assert between == [before]
    after = {"SUCCEEDED": [DATE], status: [LATER]}
    assert states(log(instance))["whole"] == states(own)["whole"] == after
    assert states_later(instance)["whole"] == after


def test_of_a_deleted_run_nothing_is_kept(
    instance: dg.DagsterInstance, elsewhere: dg.DagsterInstance, own: SqliteEventLogStorage
) -> None:
    checks = CheckStates(log(instance))
    run_it(instance, DATE)
    newest = run_it(instance, DATE, checked=False)
    assert states_later(instance, checks)["whole"] == {}
    elsewhere.delete_run(newest)
    assert states_later(instance, checks) == states(own)
    assert states(own)["whole"] == {"SUCCEEDED": [DATE]}


@pytest.mark.parametrize(
    "wipe",
    [
        lambda instance: instance.wipe_assets([table.key]),
        lambda instance: instance.event_log_storage.wipe(),
    ],
)
def test_of_what_is_wiped_nothing_is_kept(
    instance: dg.DagsterInstance,
    elsewhere: dg.DagsterInstance,
    own: SqliteEventLogStorage,
    wipe: Callable[[dg.DagsterInstance], None],
) -> None:
    checks = CheckStates(log(instance))
    for date in (DATE, LATER):
        run_it(instance, date)
    before = states_later(instance, checks)
    wipe(elsewhere)
    assert states_later(instance, checks) == states(own) != before


def test_other_partitions_are_another_state(
    instance: dg.DagsterInstance, own: SqliteEventLogStorage
) -> None:
    checks = CheckStates(log(instance))
    for date in (DATE, LATER):
        run_it(instance, date)
    states_later(instance, checks)
    fewer = [(WHOLE, dg.DailyPartitionsDefinition(LATER))]
    for keys in (fewer, [(WHOLE, DAYS)], fewer):
        found = checks.of(keys, instance, now=dt.datetime.now(dt.UTC) + 2 * SETTLED)
        assert readable(found) == readable(own.get_asset_check_state(keys))
        dates = [LATER] if keys is fewer else [DATE, LATER]
        assert readable(found) == {"whole": {"SUCCEEDED": dates}}
