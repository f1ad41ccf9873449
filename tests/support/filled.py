"""A store with a month of jobs in all states, and a long history behind it.

Rows are inserted as they stand, since 200,000 jobs through the jobs' own moves would take minutes.
The same seed makes the same store.
"""

import datetime as dt
import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

from sqlalchemy import Connection, String, cast, insert, literal, select

from gardener_api.config import GardenerConfig
from gardener_api.jobs.job import LEASE_EXPIRED, PARSE_ERROR, PARSING_STATES, JobKey, JobState
from gardener_api.store import schema
from gardener_api.store.engine import open_engine, writing

FILLED_NOW = dt.datetime(2024, 3, 31, 14, 0, tzinfo=dt.UTC)
"""The time at which the store is as it is."""
DATATYPES = {
    "ndt": ("annotation2", "hopannotation2", "ndt5", "ndt7", "pcap", "scamper1", "tcpinfo"),
    "wehe": ("annotation2", "hopannotation2", "replay", "scamper1"),
    "msak": ("annotation2", "throughput1", "latency1"),
    "utilization": ("switch",),
    "revtr": ("revtr1",),
}
_DAY, _HOUR, _MINUTE = dt.timedelta(days=1), dt.timedelta(hours=1), dt.timedelta(minutes=1)
_BATCH = 10_000
_PASSES = 5  # over the history
_PARSERS = [f"10.0.0.{n}" for n in range(2, 14)]
_NO_FIELD = (
    "load {tmp}.{datatype}${date:%Y%m%d}: gs://etl-mlab-local/{datatype}/{n}.tgz.jsonl has the"
    " field raw.X{n}, which the table has not [invalid]. BigQuery job gardener_load_{n}. What to"
    " do: add the field to gardener_dagster/warehouse/schemas/{datatype}.json, or have the parser"
    " drop it; then re-execute the run from its failure."
)
_LEASE = (
    "lease ended: parser 10.0.0.{n} was silent for more than 5:00:00 in attempt 3 of 3; its last"
    " call: 2024-03-30 0{d}:12:00 UTC, parsing 'ndt/tcpinfo/2024/03/2{d}/20240329T{n}0000.tgz'"
)
_PANIC = "panic: runtime error: index out of range [{n}] with length {n}"
_RATE = (
    "copy {raw}.{datatype}${date:%Y%m%d}: Exceeded rate limits: too many table update operations"
    " for this table [rateLimitExceeded]. What to do: wait an hour, then re-execute the run"
    " from its failure."
)
_FAILURES = (
    (JobState.LOADING, _NO_FIELD),
    (JobState.PARSING, _LEASE),
    (JobState.PARSING, _PANIC),
    (JobState.COPYING, _RATE),
)
_PATH = (
    JobState.QUEUED,
    JobState.INIT,
    JobState.PARSING,
    JobState.POST_PROCESSING,
    JobState.LOADING,
    JobState.DEDUPLICATING,
    JobState.COPYING,
    JobState.DELETING,
    JobState.JOINING,
    JobState.COMPLETE,
)


def filled_config() -> GardenerConfig:
    """Sixteen sources, as many as M-Lab has."""
    return GardenerConfig.model_validate(
        {
            "start_date": "2012-12-01",
            "tracker": {"timeout": "5h"},
            "sources": [
                {
                    "bucket": "archive-measurement-lab",
                    "experiment": experiment,
                    "datatype": datatype,
                    "filter": "" if datatype != "pcap" else "T(00|12)",
                    "target_datasets": {"join": "ndt"} if datatype in ("ndt5", "ndt7") else {},
                }
                for experiment, datatypes in DATATYPES.items()
                for datatype in datatypes
            ],
        }
    )


def fill(url: str, config: GardenerConfig, *, jobs: int) -> None:
    """Fill an empty store.

    Args:
        url: Of the store; it has its tables.
        config: Whose sources have the jobs.
        jobs: About how many; the history goes back as far as they reach.
    """
    engine = open_engine(url)
    rng = random.Random(8)
    month = 31 * len(config.sources)
    once = (jobs - month) // _PASSES
    try:
        with writing(engine).begin() as connection:
            _insert(connection, _history(config, once, rng))
            for generation in range(2, _PASSES + 1):
                _copy_history(connection, once, generation)
            newest = list(_month(config, _PASSES * once, rng))
            _insert(connection, iter(newest))
            connection.execute(
                insert(schema.operations), [o for job in newest for o in _operations(job)]
            )
        if engine.dialect.name == "postgresql":  # it tends itself in time; SQLite never does
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("VACUUM ANALYZE")
    finally:
        engine.dispose()


def _insert(connection: Connection, made: Iterator[dict[str, Any]]) -> None:
    while batch := list(islice(made, _BATCH)):
        connection.execute(insert(schema.jobs), batch)
        connection.execute(insert(schema.events), [e for job in batch for e in _events(job)])
        connection.execute(insert(schema.requests), [_request(job) for job in batch])


def _history(config: GardenerConfig, count: int, rng: random.Random) -> Iterator[dict[str, Any]]:
    """The first pass over the history, the oldest date first."""
    sources = config.sources
    for i in range(count):
        date = FILLED_NOW.date() - (31 + (count - 1 - i) // len(sources) + 1) * _DAY
        state = JobState.COMPLETE if i % 500 else JobState.FAILED
        rank = (i - count) % len(sources)
        yield _job(i + 1, 1, sources[rank], rank, date, state, rng)


def _copy_history(connection: Connection, count: int, generation: int) -> None:
    """One more pass: in the database, which takes a tenth of the time."""
    offset = (generation - 1) * count
    j, e, r = schema.jobs.c, schema.events.c, schema.requests.c
    for table, changed, first_pass in (
        (
            schema.jobs,
            {
                "number": j.number + offset,
                "generation": literal(generation),
                "wire_id": j.key + f"~{generation}." + cast(j.attempt, String),
                "daily": literal(False),
            },
            j.number <= count,
        ),
        (schema.events, {"number": None, "job": e.job + offset}, e.job <= count),
        (
            schema.requests,
            {
                "job": r.job + offset,
                "backfill_id": literal(f"bf{generation}"),
                "requester": literal(f"backfill/bf{generation}"),
            },
            r.job <= count,
        ),
    ):
        columns: dict[str, Any] = dict(table.columns.items()) | changed
        columns = {name: column for name, column in columns.items() if column is not None}
        copied = select(*columns.values()).where(first_pass)
        connection.execute(insert(table).from_select(list(columns), copied))


def _month(config: GardenerConfig, before: int, rng: random.Random) -> Iterator[dict[str, Any]]:
    """The last days, the newest last, as in a store that grew."""
    number = before
    for back in range(31, 0, -1):
        for rank, source in enumerate(config.sources):
            date = FILLED_NOW.date() - back * _DAY
            state = _state_of(date, rank, rng)
            if state is not None:
                number += 1
                yield _job(number, 1, source, rank, date, state, rng)


def _state_of(date: dt.date, rank: int, rng: random.Random) -> JobState | None:
    """What became of a date of the last month: the newer, the less is done."""
    back = (FILLED_NOW.date() - date).days
    if back > 3:
        chosen = rng.choices(["complete", "failed", "withdrawn", None], [92, 5, 1, 2])[0]
        return JobState(chosen) if chosen else None
    if back == 1 and rank == 0:
        return None
    return list(JobState)[(rank + back) % len(JobState)]


def _job(
    number: int,
    generation: int,
    source: Any,
    rank: int,
    date: dt.date,
    state: JobState,
    rng: random.Random,
) -> dict[str, Any]:
    key = JobKey(
        bucket=source.bucket, experiment=source.experiment, datatype=source.datatype, date=date
    )
    asked = dt.datetime.combine(date, dt.time(10, 30), dt.UTC) + _DAY
    ended = state in (JobState.COMPLETE, JobState.FAILED, JobState.WITHDRAWN)
    entered = asked + rng.randrange(60, 180) * _MINUTE
    attempt = 3 if state is JobState.FAILED else 1 + (number % 37 == 0)
    failed_in, error = None, ""
    if state is JobState.FAILED:
        failed_in, error = _FAILURES[number % len(_FAILURES)]
        error = error.format(
            n=number % 10,
            d=number % 7,
            date=date,
            datatype=key.datatype,
            tmp=source.target_datasets.tmp,
            raw=source.target_datasets.raw,
        )
    in_hand = state in PARSING_STATES
    leased = asked + 30 * _MINUTE if state not in (JobState.QUEUED, JobState.WITHDRAWN) else None
    updated = leased
    if in_hand:  # half of them are quiet
        updated = FILLED_NOW - (_MINUTE if number % 2 else 2 * _HOUR)
        leased = entered = updated - 20 * _MINUTE
    parsed = state in _PATH[3:] or failed_in in _PATH[3:]
    return {
        "number": number,
        "bucket": key.bucket,
        "experiment": key.experiment,
        "datatype": key.datatype,
        "date": date,
        "generation": generation,
        "attempt": attempt,
        "state": state,
        "priority": 0 if generation == 1 and not ended else 1,
        "rank": rank,
        "daily": generation == 1,
        "filter": source.filter,
        "tmp": source.target_datasets.tmp,
        "raw": source.target_datasets.raw,
        "join": source.target_datasets.join or "",
        "archives": rng.randrange(1, 12_000),
        "detail": f"{key.prefix}{date:%Y%m%d}T120000.000000Z-{key.datatype}-mlab1-lga03.tgz"
        if in_hand
        else "",
        "error": error,
        "failed_in": failed_in,
        "parser": _PARSERS[number % len(_PARSERS)] if leased else "",
        "run_id": f"{number:08x}-2c5f-4c9e-9d27-7d2d6a2f7f11" if parsed else "",
        "created": asked,
        "entered": entered,
        "leased": leased,
        "lease_expires": updated + 5 * _HOUR if in_hand and updated else None,
        "updated": updated,
        "parsed": asked + _HOUR if parsed else None,
        "ended": entered if ended else None,
        "key": str(key),
        "wire_id": f"{key}~{generation}.{attempt}",
        "reported": asked + _HOUR if parsed else None,
    }


def _events(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All of the last month's jobs; of the history only how each ended."""
    at, entered, state = job["created"], job["entered"], job["state"]
    recent = FILLED_NOW - at < 31 * _DAY
    last = job["failed_in"] or state
    passed = list(_PATH[: _PATH.index(last) + 1] if last in _PATH else _PATH[:1]) if recent else []
    if state not in passed:
        passed.append(state)
    step = max(entered - at, dt.timedelta()) / max(1, len(passed) - 1)
    left = ""
    for i, each in enumerate(passed):
        error = job["error"] if each == JobState.FAILED else ""
        yield _event(job, at + i * step, each, error, left, step.total_seconds() if i else 0.0)
        left = each
    if job["attempt"] == 2 and recent:
        name = (PARSE_ERROR, LEASE_EXPIRED)[job["number"] % 2]
        yield _event(job, entered, name, "parser: no space left on device", "parsing", 60.0)


def _event(
    job: dict[str, Any], at: dt.datetime, state: str, detail: str, left: str, seconds: float
) -> dict[str, Any]:
    return {
        "job": job["number"],
        "at": at,
        "attempt": job["attempt"],
        "state": state,
        "detail": detail,
        "left": left,
        "seconds": seconds,
    }


def _operations(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What was done to the tables of a job that came to its end, or nearly."""
    if job["state"] not in (JobState.COMPLETE, JobState.JOINING):
        return
    tmp, raw = (f"{job[dataset]}.{job['datatype']}" for dataset in ("tmp", "raw"))
    for i, (operation, table) in enumerate(
        (("load", tmp), ("dedup", tmp), ("copy", raw), ("delete", tmp))
    ):
        yield {
            "key": job["key"],
            "table": table,
            "operation": operation,
            "run_id": job["run_id"],
            "bq_job_ids": " ".join(
                f"gardener_{operation}_{job['run_id']}_{table.replace('.', '_')}_{n}"
                for n in range(1 + (operation == "dedup"))
            ),
            "rows": 1_234_567 * (operation != "delete"),
            "bytes": 98_765_432_100 if operation in ("load", "dedup") else 0,
            "slot_seconds": 4321.5 if operation == "dedup" else 0.0,
            "bytes_billed": 98_766_000_000 if operation == "dedup" else 0,
            "seconds": 61.5,
            "at": job["entered"] - (4 - i) * _MINUTE,
        }


def _request(job: dict[str, Any]) -> dict[str, Any]:
    run_id = f"{job['number']:08x}-9a41-4a07-8f1e-4d3d0a1e6b52"
    backfill_id = None if job["daily"] else f"bf{job['generation']}"
    return {
        "job": job["number"],
        "requester": f"backfill/{backfill_id}" if backfill_id else f"run/{run_id}",
        "run_id": run_id,
        "backfill_id": backfill_id,
        "covers_tables": False,
        "asked": job["created"],
        "reported": job["parsed"],
        "withdrawn": job["entered"] if job["state"] == JobState.WITHDRAWN else None,
    }
