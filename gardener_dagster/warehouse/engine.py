"""Run BigQuery jobs and API calls: retry transient errors, find the jobs of an interrupted try.

The id of a job is derived from the work, so a repeat of interrupted work finds the job that is
still running and waits for it instead of starting a second one. A job that has ended is not reused:
the tables may have changed since, and every job of the warehouse is idempotent. A job that is no
longer waited for is cancelled, so that it cannot write later.
"""

import datetime as dt
import itertools
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeVar, cast

import requests
from google.api_core.exceptions import Conflict, GoogleAPICallError, NotFound, RetryError
from google.api_core.retry import Retry, exponential_sleep_generator, if_exception_type
from google.auth.exceptions import GoogleAuthError
from google.cloud import bigquery

from gardener_dagster.warehouse.answers import AnyJob, describe, failure_of, is_transient
from gardener_dagster.warehouse.errors import BigQueryFailure, Failure, RetriesExhausted, TimedOut
from gardener_dagster.warehouse.names import Partition, Step, job_url
from gardener_dagster.warehouse.results import BqJob

_log = logging.getLogger(__name__)

Parameter = bigquery.ScalarQueryParameter
T = TypeVar("T")
J = TypeVar("J", bound=AnyJob)


_ONCE = Retry(predicate=if_exception_type())
"""No retries."""


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How long to retry transient errors: exponential backoff with jitter, capped.

    Attributes:
        initial: upper bound of the first pause, in seconds.
        maximum: upper bound of every pause, in seconds.
        timeout: no retry starts after this many seconds.
        request: timeout of one HTTP request, in seconds.
    """

    initial: float = 1.0
    multiplier: float = 2.0
    maximum: float = 60.0
    timeout: float = 600.0
    request: float = 60.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of BigQuery jobs.

    Attributes:
        project: project of the tables; empty: the client's.
        location: location of the datasets, like `US`; empty: the client's, or BigQuery's default.
        priority: of queries; BATCH queries wait for idle slots and do not count as concurrent.
        maximum_bytes_billed: BigQuery refuses a query that would bill more; None: no limit.
        job_timeout: a job that has not ended after this time is cancelled, by BigQuery if this
            process has ended.
        cancel_timeout: seconds to wait until a cancelled job has ended.
    """

    project: str = ""
    location: str = ""
    priority: Literal["BATCH", "INTERACTIVE"] = "BATCH"
    maximum_bytes_billed: int | None = None
    job_timeout: dt.timedelta = dt.timedelta(hours=6)
    cancel_timeout: float = 30.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)


class Engine:
    """Runs BigQuery jobs and API calls with retries, through a given client."""

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

    @property
    def job_timeout_ms(self) -> int:
        """The job timeout for a job's configuration, in milliseconds."""
        return int(self.settings.job_timeout.total_seconds() * 1000)

    def _retry(self, step: Step) -> Retry:
        policy = self.settings.retry
        return Retry(
            predicate=is_transient,
            initial=policy.initial,
            maximum=policy.maximum,
            multiplier=policy.multiplier,
            timeout=policy.timeout,
            on_error=partial(_before_retry, step),
        )

    def change(self, step: Step, function: Callable[[dict[str, Any]], T], *, table: str = "") -> T:
        """Call the guard, then make an API call that changes something, see `call`.

        Raises:
            Exception: raised by the guard.
        """
        step.ctx.guard()
        return self.call(step, function, table=table)

    def call(self, step: Step, function: Callable[[dict[str, Any]], T], *, table: str = "") -> T:
        """Make an API call that is safe to repeat.

        Args:
            step: named in errors and log lines; its guard is called before each retry.
            function: makes the call; gets the arguments `retry` and `timeout` of client methods.
            table: named in errors; empty: the step's partition.

        Raises:
            Exception: raised by the guard before a retry.
            RetriesExhausted: a transient error outlasted all retries.
            BigQueryFailure: BigQuery returned another error.
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

    def succeeded(self, step: Step, part: str = "") -> bool:
        """Return whether a job of this part of the work has already succeeded."""
        return any(job.state == "DONE" and not job.error_result for job in self._tries(step, part))

    def _tries(self, step: Step, part: str) -> Iterator[AnyJob]:
        """Yield the jobs of this part of the work, oldest first, up to the first missing number."""
        for tries in itertools.count(1):
            try:
                yield self.call(step, partial(self._get, _job_id(step, part, tries)))
            except BigQueryFailure as error:
                if error.failure.code != NotFound.code:
                    raise
                return

    def run(
        self,
        step: Step,
        begin: Callable[[str, dict[str, Any]], J],
        part: str = "",
        *,
        inputs: str = "",
        resume: bool = True,
    ) -> tuple[J, BqJob]:
        """Run one BigQuery job until it succeeds.

        If an interrupted try of the same work left a job running, that job is used if it has the
        same inputs; otherwise it is cancelled and a new job is run.

        Args:
            step: the step that the job belongs to.
            begin: inserts a job with the given id; its second argument holds `retry` and `timeout`
                of the client's methods.
            part: name of the job within the step, for the job's id.
            inputs: value of the job's label `inputs`; empty: the step determines the inputs.
            resume: look for jobs of an earlier try; False if `part` is unique.

        Raises:
            RetriesExhausted: a transient error outlasted all retries.
            BigQueryFailure: the job failed with another error.
            TimedOut: the job did not end within `job_timeout`.
            Exception: raised by the guard.
        """
        policy = self.settings.retry
        give_up = self._clock() + policy.timeout
        pauses = exponential_sleep_generator(policy.initial, policy.maximum, policy.multiplier)
        earlier = list(self._tries(step, part)) if resume else []
        running = earlier[-1] if earlier and earlier[-1].state != "DONE" else None
        if running is not None and inputs and running.labels.get("inputs") != inputs:
            _log.warning("BigQuery job %s works on other inputs: cancelling it", running.job_id)
            self.cancel(str(running.job_id))
            running = None
        first = len(earlier) + (running is None)
        for tries, pause in enumerate(pauses, start=1):
            # The id of a failed job cannot be used again.
            job_id = _job_id(step, part, first + tries - 1)
            found, running = running, None
            if found is not None:
                _log.info("waiting for BigQuery job %s of an earlier try", job_id)
                job = cast("J", found)
            else:
                job = self._insert(step, job_id, begin)
            self._wait(step, job)
            if not job.error_result:
                return job, describe(job, url=self._url(job), tries=tries)
            failure = Failure.of(job.error_result, job.errors or ())
            # A failure of an earlier try's job, such as a cancellation, does not count.
            if found is None and (not failure.transient or self._clock() > give_up):
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
        resume: bool = True,
    ) -> tuple[bigquery.QueryJob, BqJob]:
        """Run a query; with a destination, its rows replace that partition atomically.

        Args:
            step: the step that the query belongs to.
            sql: GoogleSQL.
            parameters: values of the query's `@parameters`.
            part: name of the job within the step, for the job's id.
            destination: partition whose rows are replaced.
            may_add_fields: add columns that the destination lacks. With WRITE_TRUNCATE this works
                on a partition only, see schemaUpdateOptions in
                https://cloud.google.com/bigquery/docs/reference/rest/v2/Job
            resume: look for jobs of an earlier try; False if `part` is unique.
        """
        config = bigquery.QueryJobConfig(
            query_parameters=list(parameters), priority=self.settings.priority, labels=step.labels
        )
        config.job_timeout_ms = self.job_timeout_ms
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

        return self.run(step, begin, part, resume=resume)

    def select(
        self, step: Step, sql: str, parameters: Sequence[Parameter], *, part: str
    ) -> tuple[list[dict[str, Any]], BqJob]:
        """Run a query and return its rows; for small results only.

        Each call runs a new job, because the result must show the current state of the tables.
        """
        part = f"{part}-{uuid.uuid4().hex[:12]}"
        job, done = self.query(step, sql, parameters, part=part, resume=False)
        return self._rows(step, job), done

    def _rows(self, step: Step, job: bigquery.QueryJob) -> list[dict[str, Any]]:
        return self.call(
            step,
            lambda options: [dict(row.items()) for row in job.result(job_retry=None, **options)],
        )

    def reference(self, table_id: str) -> bigquery.TableReference:
        """Return a reference to `dataset.table` or `dataset.table$YYYYMMDD` in `project`."""
        return bigquery.TableReference.from_string(table_id, default_project=self.project)

    def _insert(self, step: Step, job_id: str, begin: Callable[[str, dict[str, Any]], J]) -> J:
        step.ctx.guard()
        try:
            return self.call(step, partial(self._begin, job_id, begin))
        except BaseException as error:
            # Without an answer it is unknown whether BigQuery has inserted the job.
            if isinstance(error, RetriesExhausted) or not isinstance(error, BigQueryFailure):
                self.cancel(job_id)
            raise

    def _begin(
        self, job_id: str, begin: Callable[[str, dict[str, Any]], J], options: dict[str, Any]
    ) -> J:
        try:
            return begin(job_id, options)
        except Conflict:
            _log.info("BigQuery job %s exists: the answer to its insertion was lost", job_id)
            # Right after the 409 the job may not be visible yet.
            retry = options["retry"].with_predicate(
                lambda error: is_transient(error) or if_exception_type(NotFound)(error)
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
                step.ctx.guard()
                self.call(step, lambda options: job.reload(**options))
        except BaseException:
            # The job is no longer waited for, so it must not write later.
            self.cancel(str(job.job_id))
            raise

    def cancel(self, job_id: str) -> None:
        """Cancel a job and wait for its end, as it may still succeed after the cancel request.

        Failures are logged, not raised, so that they do not hide an error that is being handled.
        BigQuery ends the job at `job_timeout` in any case.
        """
        timeout = self.settings.cancel_timeout
        give_up, pause = self._clock() + timeout, 0.05
        try:
            job = self.client.cancel_job(
                job_id, location=self.location, retry=_ONCE, timeout=timeout
            )
            while job.state != "DONE" and self._clock() < give_up:
                self._sleep(pause)
                pause = min(pause * 2, 2.0)
                job.reload(retry=_ONCE, timeout=timeout)
        except NotFound:
            return  # it was never inserted
        except (GoogleAPICallError, GoogleAuthError, requests.RequestException) as error:
            _log.warning("cannot cancel BigQuery job %s: %s", job_id, error)
            return
        if job.state != "DONE":
            _log.warning("BigQuery job %s was cancelled and still runs after %g s", job_id, timeout)

    def _url(self, job: AnyJob) -> str:
        return job_url(str(job.project), str(job.location or "US"), str(job.job_id))


def _before_retry(step: Step, error: Exception) -> None:
    step.ctx.guard()
    failure = failure_of(error)
    _log.warning(
        "%s %s: BigQuery could not be asked: %s [%s]; trying again",
        *(step.operation, step.partition, failure.message, failure.reason),
    )


def _job_id(step: Step, part: str, tries: int) -> str:
    return step.job_id(part) + (f"-{tries}" if tries > 1 else "")
