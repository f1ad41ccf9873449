"""One step on one partition of a table: it has the partition to itself, and says what it does.

Into the store go its stage, what its operations did and cost, and why it failed; into Dagster what
people read. What the operations are stands in ``warehouse``, which step does which in ``assets``.
"""

import datetime as dt
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg

from gardener_api.config import Source
from gardener_api.holds import Hold, Holds
from gardener_api.jobs import JobState
from gardener_api.store import JobStore, StoreError
from gardener_dagster.graph import may_empty, source_tables
from gardener_dagster.partitions import date_of
from gardener_dagster.planning import job_key
from gardener_dagster.resources import WarehouseResource, store_needed
from gardener_dagster.warehouse.errors import WarehouseError
from gardener_dagster.warehouse.names import JobContext
from gardener_dagster.warehouse.results import BqJob, LoadResult, Result

HOLD_WAIT = dt.timedelta(hours=1)
"""How long a step waits for another run's hold: longer than the tables of the largest date take."""

_POLL_SECONDS = 2.0


def utc_now() -> dt.datetime:
    """The time, where a step needs it."""
    return dt.datetime.now(dt.UTC)


class TableStep:
    """A step of a run: its job's stage in the store, its context in the warehouse.

    Args:
        context: Dagster's.
        source: Whose table it is.
        holding: ``<dataset>.<table>`` whose partition the step has to itself. The steps from the
            load to the delete hold the partition of tmp, which all of them work on.
        store: The job store.
        warehouse: For links.
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        source: Source,
        *,
        holding: str,
        store: JobStore,
        warehouse: WarehouseResource,
    ) -> None:
        self.source, self.store = source, store
        self.date = date_of(context.partition_key)
        self.key = job_key(source, self.date)
        self.run_id = context.run.run_id
        self.tables = source_tables(source)
        self.may_empty = may_empty(context.run.tags)
        self.bq = JobContext(
            run_id=context.run.run_id,
            date=self.date,
            attempt=context.op_execution_context.retry_number + 1,
        )
        self._context, self._warehouse, self._holding = context, warehouse, holding

    @contextmanager
    def working(self) -> Iterator[None]:
        """Waits for the partition; then whatever ends the step is written into the job.

        Raises:
            dg.Failure: Another run has the partition, the warehouse refused, or the store was away
                for too long; its first line says what to do.
        """
        with store_needed():
            wait_for_partition(self._context, self.store.holds, self._holding, self.date)
            with self._told():
                yield

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise  # it could not be told; the sensor parsed_jobs does so once the store is back
        except WarehouseError as error:
            self.store.fail_stage(self.key, str(error), run_id=self.run_id, now=utc_now())
            raise dg.Failure(
                description=str(error),
                metadata=_error_metadata(error, self._warehouse.table_url(error.table)),
                allow_retries=False,
            ) from error
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}".rstrip(": ")
            self.store.fail_stage(self.key, reason, run_id=self.run_id, now=utc_now())
            if isinstance(error, Exception):
                # Else Dagster shows the step's name first, and the error as its cause far below.
                raise dg.Failure(description=reason) from error
            raise  # cancelled

    def enter(self, state: JobState, detail: str = "") -> None:
        """Writes the stage into the job."""
        self.store.stage(self.key, state, run_id=self.run_id, detail=detail, now=utc_now())

    def record(self, result: Result) -> None:
        """Keeps what an operation did and cost, for the metrics and the job's page."""
        done = f"{result.operation} {result.table}: {result.rows:,} rows"
        self._context.log.info(f"{self.key}: {done}")
        self.store.tables.record_operation(
            key=self.key,
            table=result.table,
            operation=result.operation,
            run_id=self.run_id,
            bq_job_ids=result.bq_job_ids,
            rows=result.rows,
            bytes=result.bytes_processed,
            slot_seconds=result.slot_seconds,
            bytes_billed=result.bytes_billed,
            seconds=result.waiting_seconds + result.running_seconds,
            objects=result.objects if isinstance(result, LoadResult) else None,
            now=utc_now(),
        )

    def metadata(self, table_id: str, *results: Result, about: Mapping[str, Any]) -> dict[str, Any]:
        """What a table's materialization says: what is in it, then what it cost and how."""
        jobs = [job for result in results for job in result.bq_jobs]
        common: dict[str, Any] = {
            "table": dg.MetadataValue.url(self._warehouse.table_url(table_id)),
            "seconds waiting": round(sum(r.waiting_seconds for r in results), 2),
            "seconds running": round(sum(r.running_seconds for r in results), 2),
            "slot seconds": round(sum(r.slot_seconds for r in results), 2),
            "bytes processed": sum(r.bytes_processed for r in results),
            "bytes billed": sum(r.bytes_billed for r in results),
            "tries that failed": sum(job.tries - 1 for job in jobs),
            "BigQuery jobs": dg.MetadataValue.md("\n".join(map(_job_line, jobs)) or "none"),
        }
        return dict(about) | common | _sql_metadata(results)


def wait_for_partition(
    context: dg.AssetExecutionContext,
    holds: Holds,
    table: str,
    date: dt.date,
    *,
    now: Callable[[], dt.datetime] = utc_now,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Takes a partition for the run, once no other run that is under way has it.

    Raises:
        dg.Failure: Another run did not end in time; it is named.
    """
    run_id, give_up = context.run.run_id, now() + HOLD_WAIT
    hold = holds.take(table, date, run_id=run_id, now=now())
    told = ""
    while hold.run_id != run_id:
        holder = context.instance.get_run_by_id(hold.run_id)
        if holder is None or holder.is_finished:
            hold = holds.take(table, date, run_id=run_id, ended=hold.run_id, now=now())
            continue
        if now() > give_up:
            raise dg.Failure(
                f"run {hold.run_id} works on {_partition(hold)} since {hold.since:%F %T} UTC,"
                f" and this run has waited {HOLD_WAIT} for it. What to do: see why that run does"
                " not end, terminate it if it hangs, then re-execute this one",
                metadata={
                    "run that holds the partition": dg.MetadataValue.dagster_run(hold.run_id)
                },
                allow_retries=False,
            )
        if told != hold.run_id:
            context.log.warning(
                f"run {hold.run_id} works on {_partition(hold)} since {hold.since:%F %T} UTC:"
                " waiting for it to end"
            )
            told = hold.run_id
        sleep(_POLL_SECONDS)
        hold = holds.take(table, date, run_id=run_id, now=now())


def named(names: tuple[str, ...], most: int = 20) -> str:
    """A count, and the first of them: metadata is read by people."""
    more = f"\n… and {len(names) - most} more" if len(names) > most else ""
    return "\n".join([str(len(names)), *names[:most]]) + more


def _partition(hold: Hold) -> str:
    return f"{hold.table}${hold.date:%Y%m%d}"


def _job_line(job: BqJob) -> str:
    failed = f", after {job.tries - 1} that failed for a passing reason" if job.tries > 1 else ""
    return f"- [{job.id}]({job.url}){failed}"


def _sql_metadata(results: tuple[Result, ...]) -> dict[str, Any]:
    return {
        f"SQL of {r.operation}": dg.MetadataValue.md(f"```sql\n{r.sql}\n```")
        for r in results
        if r.sql
    }


def _error_metadata(error: WarehouseError, table_url: str) -> dict[str, Any]:
    links = {"BigQuery job": error.bq_job_url, "table": table_url}
    return {
        "operation": error.operation,
        "reason": error.reason or "none given",
        "what to do": error.advice,
    } | {name: dg.MetadataValue.url(url) for name, url in links.items() if url}
