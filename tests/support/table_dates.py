"""Some dates of ndt7, and runs of their tables through the op, on tables in memory."""

import datetime as dt
from collections.abc import Callable

import dagster as dg
from fake_warehouse import FakeTables
from job_requests import request_for
from simulated import Parser

from gardener_api.config import GardenerConfig
from gardener_api.jobs.job import JobState
from gardener_api.store.store import JobStore
from gardener_dagster.assets.keys import RANGE_END_TAG, RANGE_START_TAG
from gardener_dagster.planning.due_tables import job_key
from gardener_dagster.warehouse.errors import WarehouseError
from gardener_dagster.warehouse.names import JobContext

FIRST = dt.date(2024, 3, 1)
NDT7 = "ndt/ndt7"
TMP, RAW, JOINED = (dg.AssetKey([d, "ndt7"]) for d in ("tmp_ndt", "raw_ndt", "ndt"))


def day(n: int) -> dt.date:
    return FIRST + dt.timedelta(days=n - 1)


class Dates:
    """Some dates of ndt7, parsed, with their annotations; and runs of their tables."""

    def __init__(
        self,
        config: GardenerConfig,
        store: JobStore,
        defs: dg.Definitions,
        tables: FakeTables,
        instance: dg.DagsterInstance,
    ) -> None:
        self.config, self.store, self.tables, self.instance = config, store, tables, instance
        self._job = defs.resolve_implicit_global_asset_job_def()

    def parse(self, *numbers: int, ids: tuple[str, ...] = ("x", "x", "y")) -> None:
        parser = Parser(self.store)
        for n in numbers:
            key = job_key(self.config.source(NDT7), day(n))
            ask = request_for(key, requester=f"r{len(self.tables.log)}", archives=1)
            self.store.enqueue([ask], now=dt.datetime.now(dt.UTC))
            [leased] = self.store.lease(1, now=dt.datetime.now(dt.UTC))
            parser.finish(leased)
            self.tables.parsed["ndt7", day(n)] = list(ids)
            self.tables.rows[f"raw_ndt.annotation2${day(n):%Y%m%d}"] = ["x"]

    def run(
        self,
        first: int,
        last: int,
        *keys: dg.AssetKey,
        tags: dict[str, str] | None = None,
        run_id: str | None = None,
    ) -> dg.ExecuteInProcessResult:
        ends = {RANGE_START_TAG: day(first).isoformat(), RANGE_END_TAG: day(last).isoformat()}
        return self._job.execute_in_process(
            asset_selection=list(keys or (TMP, RAW, JOINED)),
            instance=self.instance,
            tags=ends | (tags or {}),
            raise_on_error=False,
            run_id=run_id,
        )

    def state(self, n: int) -> JobState:
        job = self.store.latest(job_key(self.config.source(NDT7), day(n)))
        assert job is not None
        return job.state

    def error(self, n: int) -> str:
        job = self.store.latest(job_key(self.config.source(NDT7), day(n)))
        assert job is not None
        return job.error

    def holder(self, table: str, n: int) -> str | None:
        return self.store.partition_locks.holder(table, day(n))

    def done(self, n: int) -> list[str]:
        """The operations on a date, oldest first."""
        return [operation for operation, date in self.tables.log if date == day(n)]


def failing(*numbers: int, operation: str = "copy") -> Callable[..., None]:
    def hook(name: str, date: dt.date, context: JobContext) -> None:
        if name == operation and date in {day(n) for n in numbers}:
            raise WarehouseError("no", operation=name, table="t", advice="mend it")

    return hook


def materialized(result: dg.ExecuteInProcessResult) -> set[tuple[str, str]]:
    made = [
        (event.asset_key.to_user_string(), str(event.partition))
        for event in result.get_asset_materialization_events()
        if event.asset_key
    ]
    assert len(made) == len(set(made)), "a partition was reported twice"
    return set(made)


def expected(
    *numbers: int, tables: tuple[str, ...] = ("tmp_ndt", "raw_ndt", "ndt")
) -> set[tuple[str, str]]:
    return {(f"{table}/ndt7", day(n).isoformat()) for table in tables for n in numbers}


def checks(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {e.check_name: e for e in result.get_asset_check_evaluations()}
