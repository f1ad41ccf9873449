"""Runs BigQuery jobs and API calls: what passes by itself is tried again, a repeat finds its job.

A job's id is the same whenever the same work is done, so a repeat after a crash, or after an answer
that was lost, meets its own job (409) and waits for it. Nothing here knows what the jobs are for.
"""

import datetime as dt
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeVar

import requests
from google.api_core.exceptions import Conflict, GoogleAPICallError, NotFound, RetryError
from google.api_core.retry import Retry, exponential_sleep_generator, if_exception_type
from google.auth.exceptions import TransportError
from google.cloud import bigquery

from gardener_dagster.warehouse.errors import BigQueryFailure, Failure, RetriesExhausted, TimedOut
from gardener_dagster.warehouse.names import JobContext, Partition, SourceTables, job_url, labels
from gardener_dagster.warehouse.results import BqJob

_log = logging.getLogger(__name__)

AnyJob = bigquery.LoadJob | bigquery.CopyJob | bigquery.QueryJob
Parameter = bigquery.ScalarQueryParameter
T = TypeVar("T")
J = TypeVar("J", bound=AnyJob)


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How long to try again what passes by itself: exponential backoff with jitter, capped.

    Attributes:
        initial: longest first pause, in seconds.
        maximum: longest pause, in seconds.
        timeout: no new try after this many seconds.
        request: seconds to wait for one HTTP answer.
    """

    initial: float = 1.0
    multiplier: float = 2.0
    maximum: float = 60.0
    timeout: float = 600.0
    request: float = 60.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How jobs are run.

    Attributes:
        project: of the tables; empty: the client's.
        location: of the datasets, like `US`; empty: the client's, or BigQuery's default.
        priority: of queries; BATCH ones wait for idle workers and do not count as concurrent.
        maximum_bytes_billed: a query that would cost more is refused; None: no limit.
        job_timeout: a job that has not ended by then is cancelled.
    """

    project: str = ""
    location: str = ""
    priority: Literal["BATCH", "INTERACTIVE"] = "BATCH"
    maximum_bytes_billed: int | None = None
    job_timeout: dt.timedelta = dt.timedelta(hours=6)
    retry: RetryPolicy = field(default_factory=RetryPolicy)


@dataclass(frozen=True, kw_only=True)
class Step:
    """What is being done, for job ids, labels and errors.

    Attributes:
        operation: load, dedup, copy, delete or join.
        partition: what is written, or looked at.
    """

    operation: str
    tables: SourceTables
    ctx: JobContext
    partition: Partition

    def job_id(self, part: str = "") -> str:
        """The id of the job that does this step, or this part of it."""
        return self.ctx.job_id(
            f"{self.operation}-{part}" if part else self.operation, self.partition
        )

    @property
    def labels(self) -> dict[str, str]:
        """For the BigQuery job."""
        return labels(self.tables, self.ctx, self.operation)


class Engine:
    """BigQuery jobs and calls with retries; one client, made elsewhere."""

    def __init__(
        self,
        client: bigquery.Client,
        settings: Settings,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.client, self.settings = client, settings
        self.project = settings.project or client.project
        self.location = settings.location or client.location
        self._sleep, self._clock = sleep, clock

    def _retry(self, step: Step) -> Retry:
        policy = self.settings.retry
        return Retry(
            predicate=_passes_by_itself,
            initial=policy.initial,
            maximum=policy.maximum,
            multiplier=policy.multiplier,
            timeout=policy.timeout,
            on_error=partial(_tell_retry, step),
        )

    def call(self, step: Step, function: Callable[[dict[str, Any]], T], *, table: str = "") -> T:
        """Makes an API call that is safe to repeat.

        Args:
            step: for the error.
            function: gets the arguments `retry` and `timeout` of the client's methods.
            table: for the error, where it is not the step's partition.

        Raises:
            RetriesExhausted: it kept failing for a passing reason.
            BigQueryFailure: BigQuery refused.
        """
        try:
            return function({"retry": self._retry(step), "timeout": self.settings.retry.request})
        except RetryError as error:
            cause = error.cause or error
            raise RetriesExhausted(
                failure_of(cause),
                operation=step.operation,
                table=table or step.partition.id,
                prefix=f"still failing after {self.settings.retry.timeout:g} s: ",
            ) from cause
        except GoogleAPICallError as error:
            raise BigQueryFailure(
                failure_of(error), operation=step.operation, table=table or step.partition.id
            ) from error

    def find(self, step: Step, part: str = "") -> bool:
        """Whether a try of this very step is done or on its way in BigQuery."""
        for tries in itertools.count(1):
            try:
                job = self.call(step, partial(self._get, _job_id(step, part, tries)))
            except BigQueryFailure as error:
                if error.failure.code == NotFound.code:
                    return False
                raise
            if not job.error_result:
                return True
        raise AssertionError("counting never ends")

    def run(
        self, step: Step, begin: Callable[[str, dict[str, Any]], J], part: str = ""
    ) -> tuple[J, BqJob]:
        """Runs one BigQuery job to its successful end.

        Args:
            step: what it is for.
            begin: inserts the job of the id it is given, with `retry` and `timeout` of the client's
                methods.
            part: which of the step's jobs it is.

        Raises:
            RetriesExhausted: it kept failing for a passing reason.
            BigQueryFailure: it failed for another one.
            TimedOut: it did not end.
        """
        policy = self.settings.retry
        give_up = self._clock() + policy.timeout
        pauses = exponential_sleep_generator(policy.initial, policy.maximum, policy.multiplier)
        for tries, pause in enumerate(pauses, start=1):
            # A failed job keeps its id, so the next try needs another; a repeat walks the same ids.
            job_id = _job_id(step, part, tries)
            job = self.call(step, partial(self._begin, job_id, begin))
            self._wait(step, job)
            if not job.error_result:
                return job, self._describe(job, tries)
            failure = Failure.of(job.error_result, job.errors or ())
            if not failure.transient or self._clock() > give_up:
                kind = RetriesExhausted if failure.transient else BigQueryFailure
                raise kind(
                    failure,
                    operation=step.operation,
                    table=step.partition.id,
                    bq_job_id=job_id,
                    bq_job_url=self._url(job),
                    prefix=f"still failing after {tries} tries: " if failure.transient else "",
                )
            _log.warning(
                "%s %s: BigQuery job %s failed: %s [%s]; try %d follows in %.1f s",
                *(step.operation, step.partition, job_id, failure.message, failure.reason),
                *(tries + 1, pause),
            )
            self._sleep(pause)
        raise AssertionError("the generator of pauses never ends")

    def query(
        self,
        step: Step,
        sql: str,
        parameters: Sequence[Parameter],
        *,
        part: str = "",
        destination: Partition | None = None,
        may_add_fields: bool = False,
    ) -> tuple[bigquery.QueryJob, BqJob]:
        """Runs a query; with a destination its rows replace that partition, atomically.

        Args:
            step: what it is for.
            sql: GoogleSQL.
            parameters: values of its `@names`.
            part: which of the step's jobs it is.
            destination: partition whose rows are replaced.
            may_add_fields: columns the destination lacks are added to it. With WRITE_TRUNCATE
                that works on a partition only, see schemaUpdateOptions in
                https://cloud.google.com/bigquery/docs/reference/rest/v2/Job
        """
        config = bigquery.QueryJobConfig(
            query_parameters=list(parameters), priority=self.settings.priority, labels=step.labels
        )
        config.use_legacy_sql = False
        if self.settings.maximum_bytes_billed is not None:
            config.maximum_bytes_billed = self.settings.maximum_bytes_billed
        if destination is not None:
            config.destination = self.reference(destination.id)
            config.write_disposition = bigquery.WriteDisposition.WRITE_TRUNCATE
            config.create_disposition = bigquery.CreateDisposition.CREATE_NEVER
        if may_add_fields:
            config.schema_update_options = [bigquery.SchemaUpdateOption.ALLOW_FIELD_ADDITION]

        def begin(job_id: str, options: dict[str, Any]) -> bigquery.QueryJob:
            return self.client.query(
                sql,
                job_id=job_id,
                job_config=config,
                location=self.location,
                job_retry=None,
                **options,
            )

        return self.run(step, begin, part)

    def select(
        self, step: Step, sql: str, parameters: Sequence[Parameter], *, part: str
    ) -> tuple[list[dict[str, Any]], BqJob]:
        """Runs a query and returns its rows: a handful, not a table."""
        job, done = self.query(step, sql, parameters, part=part)
        try:
            return self._rows(step, job), done
        except BigQueryFailure as error:
            if error.failure.code != NotFound.code:
                raise
        # A job that was found again, but its anonymous result table, kept for a day, is gone.
        job, done = self.query(step, sql, parameters, part=f"{part}-again")
        return self._rows(step, job), done

    def _rows(self, step: Step, job: bigquery.QueryJob) -> list[dict[str, Any]]:
        return self.call(
            step,
            lambda options: [dict(row.items()) for row in job.result(job_retry=None, **options)],
        )

    def reference(self, table_id: str) -> bigquery.TableReference:
        """`dataset.table` or `dataset.table$YYYYMMDD` in the project of the tables."""
        return bigquery.TableReference.from_string(table_id, default_project=self.project)

    def _begin(
        self, job_id: str, begin: Callable[[str, dict[str, Any]], J], options: dict[str, Any]
    ) -> J:
        try:
            return begin(job_id, options)
        except Conflict:
            _log.info("BigQuery job %s exists already: waiting for it", job_id)
            # Right after the 409 the job may not be visible yet.
            retry = options["retry"].with_predicate(
                lambda error: _passes_by_itself(error) or if_exception_type(NotFound)(error)
            )
            found: J = self._get(job_id, options | {"retry": retry})
            return found

    def _get(self, job_id: str, options: dict[str, Any]) -> Any:  # noqa: ANN401 - its kind follows from its id
        return self.client.get_job(job_id, location=self.location, **options)

    def _wait(self, step: Step, job: AnyJob) -> None:
        deadline = self._clock() + self.settings.job_timeout.total_seconds()
        pause = 0.01
        try:
            while job.state != "DONE":
                if self._clock() > deadline:
                    self._cancel(job)
                    raise TimedOut(
                        f"not done after {self.settings.job_timeout}, so it was cancelled",
                        operation=step.operation,
                        table=step.partition.id,
                        bq_job_id=str(job.job_id),
                        bq_job_url=self._url(job),
                        advice="see in BigQuery what it waited for, then re-execute the run",
                    )
                self._sleep(pause)
                pause = min(pause * 2, 10.0)
                self.call(step, lambda options: job.reload(**options))
        except BaseException as error:
            # A run that is cancelled must not leave a job behind that writes later.
            if not isinstance(error, Exception):
                self._cancel(job)
            raise

    def _cancel(self, job: AnyJob) -> None:
        try:
            job.cancel(retry=None, timeout=self.settings.retry.request)
        except (GoogleAPICallError, requests.RequestException) as error:
            _log.warning("cannot cancel BigQuery job %s: %s", job.job_id, error)

    def _url(self, job: AnyJob) -> str:
        return job_url(str(job.project), str(job.location or "US"), str(job.job_id))

    def _describe(self, job: AnyJob, tries: int) -> BqJob:
        # `to_api_repr` leaves the statistics out, and properties show only a part of them.
        statistics: dict[str, Any] = job._properties.get("statistics", {})
        own = statistics.get(job.job_type, {})
        read = own.get("inputFileBytes") or statistics.get("totalBytesProcessed") or 0
        return BqJob(
            id=str(job.job_id),
            kind=job.job_type,
            url=self._url(job),
            sql=job.query if isinstance(job, bigquery.QueryJob) else "",
            tries=tries,
            waiting_seconds=_seconds(job.created, job.started),
            running_seconds=_seconds(job.started, job.ended),
            slot_seconds=int(statistics.get("totalSlotMs") or own.get("totalSlotMs") or 0) / 1000,
            bytes_processed=int(read),
            bytes_billed=int(own.get("totalBytesBilled") or 0),
        )


def _tell_retry(step: Step, error: Exception) -> None:
    failure = failure_of(error)
    _log.warning(
        "%s %s: BigQuery could not be asked: %s [%s]; trying again",
        *(step.operation, step.partition, failure.message, failure.reason),
    )


def _job_id(step: Step, part: str, tries: int) -> str:
    return step.job_id(part) + (f"-{tries}" if tries > 1 else "")


def _seconds(start: dt.datetime | None, end: dt.datetime | None) -> float:
    return max(0.0, (end - start).total_seconds()) if start and end else 0.0


def failure_of(error: BaseException) -> Failure:
    """What an exception of the client says, in BigQuery's terms."""
    if not isinstance(error, GoogleAPICallError):
        return Failure(reason=type(error).__name__, message=str(error) or repr(error))
    first: dict[str, Any] = next(iter(error.errors), {}) if error.errors else {}
    return Failure(
        reason=str(first.get("reason", "")),
        message=str(first.get("message") or error.message or error),
        location=str(first.get("location", "")),
        code=int(error.code or 0),
    )


def _passes_by_itself(error: BaseException) -> bool:
    if isinstance(error, requests.exceptions.SSLError):
        return False  # a wrong certificate does not pass
    if isinstance(error, GoogleAPICallError):
        return failure_of(error).transient
    return isinstance(
        error,
        (
            ConnectionError,
            TransportError,
            requests.exceptions.ChunkedEncodingError,
            requests.exceptions.ConnectionError,
            requests.exceptions.Timeout,
        ),
    )
