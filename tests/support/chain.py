"""The chain of one date in a test's own process: a parse of given rows, then any of its steps."""

import datetime as dt
import json
from collections.abc import Sequence
from typing import Any

import dagster as dg
import requests
from dagster import DagsterEventType
from google.cloud import storage
from job_requests import request_for
from simulated import Parser, Put

from gardener_api.config import GardenerConfig
from gardener_api.jobs.job import Job, JobState
from gardener_api.store.store import JobStore
from gardener_dagster.assets.keys import RANGE_END_TAG, RANGE_START_TAG
from gardener_dagster.planning.due_tables import job_key

DAY = dt.date(2024, 3, 1)

Row = dict[str, Any]


def row(
    id: str | None,
    archive: str = "a.tgz",
    datatype: str = "ndt7",
    date: dt.date = DAY,
    **more: Any,
) -> Row:
    """A row as the parser writes it."""
    return {
        "id": id,
        "date": date.isoformat(),
        "parser": {
            "Version": "v1",
            "Time": "2024-03-02T12:00:00Z",
            "ArchiveURL": f"gs://archive-mlab/ndt/{datatype}/{date:%Y/%m/%d}/{archive}",
            "Filename": "f.json",
        },
        **more,
    }


class Chain:
    """Runs parts of the chain of some dates, as Dagster would."""

    def __init__(
        self,
        config: GardenerConfig,
        store: JobStore,
        defs: dg.Definitions,
        put_archive: Put,
        parsed: storage.Bucket,
        bigquery_url: str,
    ) -> None:
        self.config, self.store, self.bigquery_url = config, store, bigquery_url
        self._defs, self._put, self._parsed = defs, put_archive, parsed

    def parse(
        self, name: str, rows: Sequence[Row], *, archives: int = 1, date: dt.date = DAY
    ) -> Job:
        """What the store and the buckets hold after a parse of these rows."""
        source = self.config.source(name)
        key = job_key(source, date)
        request = request_for(
            key, requester=f"r{len(rows)}{archives}", run_id="r", archives=archives
        )
        [job] = self.store.enqueue([request], now=dt.datetime.now(dt.UTC))
        for archive in {r["parser"]["ArchiveURL"].rsplit("/", 1)[1] for r in rows}:
            self._put(date, source.datatype, archive)
            of_archive = [r for r in rows if archive in json.dumps(r)]
            self.write(source.datatype, archive, of_archive, date=date)
        if archives:
            [leased] = self.store.lease(1, now=dt.datetime.now(dt.UTC))
            Parser(self.store).finish(leased)
        return job

    def write(
        self,
        datatype: str,
        archive: str,
        rows: Sequence[Row],
        text: str = "",
        *,
        date: dt.date = DAY,
    ) -> None:
        """Writes the parsed object of an archive."""
        blob = self._parsed.blob(f"archive-mlab/ndt/{datatype}/{date:%Y/%m/%d}/{archive}.jsonl")
        blob.metadata = {"rows": str(len(rows))}
        blob.upload_from_string(text or "".join(json.dumps(r) + "\n" for r in rows))

    def run(
        self,
        name: str,
        *tables: str,
        instance: dg.DagsterInstance,
        tags: dict[str, str] | None = None,
        dates: tuple[dt.date, dt.date] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Runs tables of a source: of ``DAY``, or of all dates from the first to the last."""
        source = self.config.source(name)
        datasets = {"tmp": "tmp_ndt", "raw": "raw_ndt", "joined": "ndt"}
        keys = [dg.AssetKey([datasets[t], source.datatype]) for t in tables]
        ends = (
            {RANGE_START_TAG: dates[0].isoformat(), RANGE_END_TAG: dates[1].isoformat()}
            if dates
            else {}
        )
        return self._defs.resolve_implicit_global_asset_job_def().execute_in_process(
            asset_selection=keys,
            partition_key=None if dates else DAY.isoformat(),
            instance=instance,
            tags=ends | (tags or {}),
            raise_on_error=False,
        )

    def operations(self, name: str, date: dt.date = DAY) -> list[str]:
        """What was done to the tables of a date, oldest first."""
        done = self.store.tables.operations(job_key(self.config.source(name), date))
        return [operation.operation for operation in done]

    def fault(self, **fault: Any) -> None:
        requests.post(f"{self.bigquery_url}/faults", json=[fault], timeout=10).raise_for_status()

    def state(self, name: str, date: dt.date = DAY) -> tuple[JobState, str]:
        job = self.store.latest(job_key(self.config.source(name), date))
        assert job is not None
        return job.state, job.error


def resumed(run_id: str) -> dict[str, str]:
    """Tags of a run that goes on with another, as Dagster's re-execution from failure has them."""
    return {
        "dagster/root_run_id": run_id,
        "dagster/parent_run_id": run_id,
        "dagster/is_resume_retry": "true",
    }


def failure(result: dg.ExecuteInProcessResult) -> str:
    """What the step that failed says."""
    [event] = result.filter_events(lambda e: e.event_type is DagsterEventType.STEP_FAILURE)
    data = event.step_failure_data
    assert data.user_failure_data is not None
    return str(data.user_failure_data.description)
