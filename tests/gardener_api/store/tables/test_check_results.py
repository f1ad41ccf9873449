import datetime as dt
from collections.abc import Callable

from gardener_api.jobs.job import JobKey
from gardener_api.store.store import JobStore
from gardener_api.store.tables.check_results import CheckResult, RecordedCheck

MakeKey = Callable[..., JobKey]
HOUR = dt.timedelta(hours=1)


def result(name: str = "rows_of_week", *, passed: bool = False, **changed: object) -> CheckResult:
    values = {
        "table": "raw_ndt.ndt7",
        "severity": "warn",
        "description": "3 rows, 114 a week ago",
        "metadata": {"rows": 3, "share": 0.5, "dates": ["2024-03-01"]},
    }
    return CheckResult(name=name, passed=passed, **values | changed)  # type: ignore[arg-type]  # fields of CheckResult


def names(checks: list[RecordedCheck]) -> list[tuple[str, str]]:
    return [(check.result.table, check.result.name) for check in checks]


def test_results_are_kept(store: JobStore, make_key: MakeKey, now: dt.datetime) -> None:
    key = make_key(1)
    store.checks.record(key, [result(), result("unique_keys", passed=True)], run_id="r", now=now)
    store.checks.record(key, [], run_id="r", now=now)
    assert store.checks.of(key) == [
        RecordedCheck(key=key, result=result(), run_id="r", at=now),
        RecordedCheck(key=key, result=result("unique_keys", passed=True), run_id="r", at=now),
    ]
    assert store.checks.of(make_key(2)) == []


def test_a_newer_result_replaces_the_older(
    store: JobStore, make_key: MakeKey, now: dt.datetime
) -> None:
    key = make_key(1)
    store.checks.record(key, [result(), result(table="ndt.ndt7")], run_id="r", now=now)
    store.checks.record(key, [result(passed=True)], run_id="s", now=now + HOUR)
    joined, raw = store.checks.of(key)
    assert (joined.run_id, joined.result.passed) == ("r", False)
    assert (raw.run_id, raw.at, raw.result.passed) == ("s", now + HOUR, True)


def test_what_has_not_passed(store: JobStore, make_key: MakeKey, now: dt.datetime) -> None:
    for day in (1, 2, 3):
        results = [result(passed=day == 2), result("unique_keys", passed=True)]
        store.checks.record(make_key(day), results, run_id="r", now=now)
    annotation = make_key(3, "annotation2")
    store.checks.record(annotation, [result(table="raw_ndt.annotation2")], run_id="r", now=now)
    first, last = make_key(2).date, make_key(3).date
    failing = store.checks.failing(first, last)
    assert {str(key): names(checks) for key, checks in failing.items()} == {
        str(annotation): [("raw_ndt.annotation2", "rows_of_week")],
        str(make_key(3)): [("raw_ndt.ndt7", "rows_of_week")],
    }
    failing = store.checks.failing_of([make_key(1), make_key(2)])
    assert {str(key): names(checks) for key, checks in failing.items()} == {
        str(make_key(1)): [("raw_ndt.ndt7", "rows_of_week")]
    }


def test_text_is_kept_as_a_database_can(
    store: JobStore, make_key: MakeKey, now: dt.datetime
) -> None:
    store.checks.record(make_key(), [result(description="a\0b")], run_id="r", now=now)
    [check] = store.checks.of(make_key())
    assert check.result.description == "a\N{REPLACEMENT CHARACTER}b"
