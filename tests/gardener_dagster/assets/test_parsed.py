import datetime as dt
from typing import Any

import dagster as dg
import pytest
from google.cloud import storage
from parse_runs import DAYS, NDT7, At, materialized, run_parse
from simulated import Parser
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from gardener_api.jobs.job import JobState, Outcome
from gardener_api.store.schema import StoreError
from gardener_api.store.store import JobStore
from gardener_dagster.assets import parsed
from gardener_dagster.assets.parsed import parsed_metadata
from gardener_dagster.planning.due_tables import job_key

ANNOTATION2 = dg.AssetKey(["parsed", "ndt", "annotation2"])


@pytest.mark.usefixtures("archives")
def test_a_range_of_dates_is_asked_for_in_order_and_each_reported(
    defs: dg.Definitions, instance: dg.DagsterInstance, store: JobStore, parser: Parser
) -> None:
    with parser:
        result = run_parse(defs, instance, [NDT7], DAYS[0], DAYS[-1])
    assert result.success
    assert [job.key.date for job in parser.seen] == DAYS
    assert materialized(instance, NDT7) == {day.isoformat() for day in DAYS}
    event = instance.get_latest_materialization_event(NDT7)
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata["archives"].value == 2
    assert store.unreported_parses() == []  # the run said so itself


@pytest.mark.usefixtures("archives")
def test_one_date_gives_an_output_so_that_steps_after_it_run(
    defs: dg.Definitions, instance: dg.DagsterInstance, parser: Parser
) -> None:
    with parser:
        result = run_parse(defs, instance, [NDT7, ANNOTATION2], DAYS[0])
    assert result.success
    assert len(result.asset_materializations_for_node("parse")) == 2


@pytest.mark.usefixtures("bucket")
def test_a_date_without_archives_needs_no_parser(
    defs: dg.Definitions, instance: dg.DagsterInstance, store: JobStore, config: object
) -> None:
    result = run_parse(defs, instance, [NDT7], DAYS[0])
    assert result.success
    [found] = store.jobs(limit=10)
    assert (found.state, found.archives) == (JobState.POST_PROCESSING, 0)
    assert parsed_metadata(found)["parser"].value == "none: there were no archives"


@pytest.mark.usefixtures("archives")
def test_a_date_that_fails_is_named_with_the_parsers_message_and_the_others_arrive(
    defs: dg.Definitions, instance: dg.DagsterInstance, parser: Parser
) -> None:
    parser.failing.add(DAYS[1])
    with parser:
        result = run_parse(defs, instance, [NDT7], DAYS[0], DAYS[-1])
    assert not result.success
    assert materialized(instance, NDT7) == {DAYS[0].isoformat(), DAYS[2].isoformat()}
    [failure] = [e for e in result.all_events if e.is_step_failure]
    [first, *_] = failure.step_failure_data.error_display_string.splitlines()
    assert "1 job failed: archive-mlab/ndt/ndt7/20240302~1.2: failed in its attempt 2" in first
    assert "no tar in it. What to do: " in first


def test_d02_a_listing_that_fails_is_an_error_and_not_an_empty_day(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    store: JobStore,
    bucket: storage.Bucket,
    parser: Parser,
) -> None:
    bucket.delete(force=True)
    result = run_parse(defs, instance, [NDT7], DAYS[0], DAYS[1])
    assert not result.success
    assert store.jobs(limit=10) == []
    [failure] = [e for e in result.all_events if e.is_step_failure]
    assert "could not be listed" in failure.step_failure_data.error_display_string


@pytest.mark.usefixtures("archives")
def test_a_connection_that_is_cut_amid_the_wait_fails_nothing(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    parser: Parser,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut = [OperationalError("SELECT", {}, Exception("cut"), connection_invalidated=True)]
    unreported = JobStore.unreported

    def once_cut(store: JobStore, *args: Any, **kwargs: Any) -> list[Outcome]:
        if cut:
            raise cut.pop()
        return unreported(store, *args, **kwargs)

    monkeypatch.setattr(JobStore, "unreported", once_cut)
    with parser:
        result = run_parse(defs, instance, [NDT7], DAYS[0])
    assert result.success
    assert cut == []


@pytest.mark.usefixtures("archives")
def test_a_run_that_waits_long_says_where_to_look(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    parser: Parser,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parsed, "SILENCE", dt.timedelta())
    unreported, looks = JobStore.unreported, iter(range(3))

    def nothing_at_first(store: JobStore, *args: Any, **kwargs: Any) -> list[Outcome]:
        if next(looks, None) is not None:
            return []
        return unreported(store, *args, **kwargs)

    monkeypatch.setattr(JobStore, "unreported", nothing_at_first)
    monkeypatch.setattr(parsed, "POLL_SECONDS", 0.05)
    with parser:
        result = run_parse(defs, instance, [NDT7], DAYS[0])
    assert result.success
    told = [entry.user_message for entry in instance.all_logs(result.run_id) if entry.level == 30]
    assert "waiting for 1 job; none ended for 0 s. What to do: see the status page" in told[0]


@pytest.mark.usefixtures("archives")
def test_d45_each_date_of_a_range_is_materialized_while_later_ones_are_parsed(
    defs: dg.Definitions, instance: dg.DagsterInstance, store: JobStore, when_polling: At
) -> None:
    parser, seen = Parser(store), list[set[str]]()

    def parse_one() -> None:
        seen.append(materialized(instance, NDT7))
        for job in store.lease(1, parser="test", now=dt.datetime.now(dt.UTC)):
            parser.finish(job)

    when_polling(parse_one, always=True)
    assert run_parse(defs, instance, [NDT7], DAYS[0], DAYS[-1]).success
    names = [day.isoformat() for day in DAYS]
    assert set(names[:1]) in seen
    assert set(names[:2]) in seen


@pytest.mark.usefixtures("archives")
def test_a_look_while_dagsters_storage_is_away_fails_nothing(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    parser: Parser,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parsed, "CANCEL_POLL_SECONDS", 0.0)
    look, away = parsed.Waiting.check_run, iter([True])
    get_run = instance.get_run_by_id

    def refused(run_id: str) -> dg.DagsterRun | None:
        raise SQLAlchemyError("Dagster's database is restarted")

    def look_once_while_it_is_away(waiting: parsed.Waiting) -> None:
        with monkeypatch.context() as patch:
            if next(away, False):
                patch.setattr(instance, "get_run_by_id", refused)
            look(waiting)

    monkeypatch.setattr(parsed.Waiting, "check_run", look_once_while_it_is_away)
    with parser:
        assert run_parse(defs, instance, [NDT7], DAYS[0], DAYS[-1]).success
    assert next(away, None) is None
    assert instance.get_run_by_id == get_run


@pytest.mark.usefixtures("archives")
def test_a_store_that_stays_away_fails_the_run_and_keeps_what_was_asked_for(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    store: JobStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def away(*_: object, **__: object) -> list[Outcome]:
        raise StoreError("the job store does not answer. What to do: see whether it runs")

    monkeypatch.setattr(JobStore, "unreported", away)
    result = run_parse(defs, instance, [NDT7], DAYS[0])
    [failure] = [e for e in result.all_events if e.is_step_failure]
    [first, *_] = failure.step_failure_data.error_display_string.splitlines()
    assert "the job store does not answer. What to do: see whether it runs, then re-ex" in first
    assert [job.state for job in store.jobs(limit=10)] == [JobState.QUEUED]


@pytest.mark.usefixtures("archives")
def test_a_re_executed_run_asks_only_for_what_failed(
    defs: dg.Definitions, instance: dg.DagsterInstance, store: JobStore, parser: Parser
) -> None:
    parser.failing.add(DAYS[1])
    with parser:
        run_parse(defs, instance, [NDT7], DAYS[0], DAYS[-1])
        first = [job.id for job in parser.seen]
        parser.failing.clear()
        # The same requester: what a backfill's or a resumed run's tags make of it.
        [asked, *_] = store.requests(store.jobs(limit=10)[0].number)
        again = defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance,
            asset_selection=[NDT7],
            tags={
                "dagster/asset_partition_range_start": DAYS[0].isoformat(),
                "dagster/asset_partition_range_end": DAYS[-1].isoformat(),
                "dagster/root_run_id": asked.run_id,
                "dagster/is_resume_retry": "true",
            },
        )
    assert again.success
    assert [job.key.date for job in parser.seen[len(first) :]] == [DAYS[1]]


def test_keys_name_the_bucket(config: object) -> None:
    from gardener_api.config import GardenerConfig

    assert isinstance(config, GardenerConfig)
    key = job_key(config.sources[1], DAYS[0])
    assert str(key) == "archive-mlab/ndt/ndt7/20240301"
