"""The jobs API's client for parsers in Python.

It only calls the sidecar; the parser does the work on a job.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.util.retry import Retry

from gardener_api.jobs.job import MAX_TEXT, JobState

_NO_JOB = "No job found. Try again."
_TRY_AGAIN = (429, 502, 503, 504)


class JobsAPIError(RuntimeError):
    """A call failed: the sidecar was not reached, or it rejected the call."""


class JobGone(JobsAPIError):
    """The attempt has ended; stop working on the job. Another parser may already have it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LeasedJob:
    """A job that was handed out."""

    id: str  # opaque
    bucket: str
    experiment: str
    datatype: str
    date: dt.date
    filter: str  # regular expression for the names of its archives; "": all
    tmp: str
    raw: str
    join: str

    @property
    def prefix(self) -> str:
        """The prefix of the object names of its archives."""
        return f"{self.experiment}/{self.datatype}/{self.date:%Y/%m/%d}/"


class JobsClient:
    """A client of the jobs API. It is not thread-safe.

    ``update``, ``heartbeat`` and ``error`` are retried with exponential backoff while the sidecar
    cannot be reached or is overloaded: repeating them is harmless. ``next`` is not retried: if its
    answer was lost, the job is handed out again after its lease ends.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout: float = 60.0,
        token: str | None = None,
        retries: int = 6,
        backoff: float = 0.5,
    ) -> None:
        """Make a client without sending anything.

        Args:
            base_url: The URL of the sidecar, like ``http://127.0.0.1:8080``.
            timeout: Seconds to connect, and seconds to wait for an answer.
            token: The bearer token, if the sidecar requires one.
            retries: The maximum number of retries of a call.
            backoff: Half the seconds before the second retry; each later pause doubles, up to 30.
        """
        self._url = base_url.rstrip("/")
        self._timeout = timeout
        # One session per retry policy: an adapter applies its policy to all of its requests.
        self._once = _session(token, Retry(0, read=False))
        self._again = _session(
            token,
            Retry(
                retries,
                allowed_methods={"POST"},
                status_forcelist=_TRY_AGAIN,
                backoff_factor=backoff,
                backoff_max=30.0,
                backoff_jitter=backoff,
                raise_on_status=False,
            ),
        )

    def next(self) -> LeasedJob | None:
        """Ask for a job.

        Returns:
            The job; ``None`` if there is none now.

        Raises:
            JobsAPIError: The call failed.
        """
        response = self._post(self._once, "next", {})
        if response.status_code == 500 and response.text.strip() == _NO_JOB:
            return None
        _check(response)
        try:
            return _leased(response.json())
        except (ValueError, KeyError, TypeError) as error:
            raise JobsAPIError(
                f"{response.url} answered no job: {response.text[:200]!r}"
            ) from error

    def update(self, job_id: str, state: JobState | str, detail: str = "") -> None:
        """Report the state of a job, and renew its lease.

        Args:
            job_id: The ID of the job.
            state: ``parsing``, or ``postProcessing`` when all rows are written.
            detail: A description of the current work; ``-`` keeps the last one.

        Raises:
            JobGone: The attempt has ended.
            JobsAPIError: The call failed.
        """
        # The sidecar truncates it to the same length, and rejects forms of several MB.
        values = {"id": job_id, "state": str(state), "detail": detail[:MAX_TEXT]}
        _check(self._post(self._again, "update", values))

    def heartbeat(self, job_id: str) -> None:
        """Renew the lease.

        Raises:
            JobGone: The attempt has ended.
            JobsAPIError: The call failed.
        """
        _check(self._post(self._again, "heartbeat", {"id": job_id}))

    def error(self, job_id: str, error: str) -> None:
        """Report an error and give up the job; it is queued again up to the maximum of attempts.

        Raises:
            JobGone: The attempt had already ended.
            JobsAPIError: The call failed.
        """
        values = {"id": job_id, "error": error[:MAX_TEXT]}
        response = self._post(self._again, "error", values)
        tries = response.raw.retries.history if response.raw.retries else ()
        if response.status_code == 410 and tries:
            return  # an earlier try may have ended the attempt, and its answer was lost
        _check(response)

    def close(self) -> None:
        """Close the connections."""
        self._once.close()
        self._again.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _post(
        self, session: requests.Session, call: str, values: Mapping[str, str]
    ) -> requests.Response:
        try:
            return session.post(f"{self._url}/v2/job/{call}", data=values, timeout=self._timeout)
        except requests.RequestException as error:
            raise JobsAPIError(f"{self._url} was not reached: {error}") from error


class _Bearer(AuthBase):
    """Send a bearer token; a plain header would be overridden by ~/.netrc."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _session(token: str | None, retries: Retry) -> requests.Session:
    session = requests.Session()
    if token:
        session.auth = _Bearer(token)
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retries))
    return session


def _check(response: requests.Response) -> None:
    if response.status_code == 410:
        raise JobGone(response.text.strip())
    if response.status_code != 200:
        reason = response.text.strip()[:200]
        raise JobsAPIError(f"{response.url} answered {response.status_code}: {reason}")


def _leased(answer: Mapping[str, Any]) -> LeasedJob:
    job = answer["Job"]
    return LeasedJob(
        id=answer["ID"],
        bucket=job["Bucket"],
        experiment=job["Experiment"],
        datatype=job["Datatype"],
        date=dt.datetime.fromisoformat(job["Date"]).date(),
        filter=job.get("Filter", ""),
        tmp=job["Datasets"]["Tmp"],
        raw=job["Datasets"]["Raw"],
        join=job["Datasets"].get("Join", ""),
    )
