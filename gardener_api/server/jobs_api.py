"""The jobs API on the wire: requests to calls, answers to codes.

Paths, parameters, status codes and JSON are those that deployed parsers use. The effects of calls
are defined in ``jobs.parser_calls``.
"""

import asyncio
import hmac
import json
import re
from collections.abc import Callable, Mapping
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gardener_api.jobs.job import Job
from gardener_api.jobs.parser_calls import (
    BadState,
    Call,
    Error,
    Gone,
    Heartbeat,
    Next,
    NoJob,
    Update,
)
from gardener_api.server.group_commit import Answer, GroupCommit, UnavailableError

MAX_BODY = 4 * 2**20
"""Maximum bytes of a form: enough for a detail of 1 MB (later truncated) with all bytes escaped."""
MAX_BODIES = 64 * 2**20
"""Maximum bytes of all forms that are being read."""
BODY_SECONDS = 30.0
"""Timeout for reading a form."""
_MAX_FIELDS = 100

_FORM = b"application/x-www-form-urlencoded"
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_OK = Response()
_encode = json.JSONEncoder(separators=(",", ":")).encode

Parameters = Mapping[str, str]
_Make = Callable[[Parameters, str], Call]
"""Makes a call from a request's parameters and its client's address."""


def job_endpoints(commits: GroupCommit, *, token: str | None) -> Mapping[str, ASGIApp]:
    """Return the four calls as ASGI applications, by path; each has a full and a short path.

    A dictionary routes them: Starlette's router and middleware took a tenth of a call's time.

    Args:
        commits: Executes the calls.
        token: The bearer token; ``None``: no authentication.
    """
    bodies = _Bodies()
    calls: Mapping[tuple[str, ...], _Make] = {
        ("/v2/job/next", "/job"): _next,
        ("/v2/job/update", "/update"): _update,
        ("/v2/job/heartbeat", "/heartbeat"): _heartbeat,
        ("/v2/job/error", "/error"): _error,
    }
    return {
        path: _Endpoint(make, commits, bodies, token)
        for paths, make in calls.items()
        for path in paths
    }


def job_json(job: Job) -> bytes:
    """Return a job as the JSON that ``next`` answers."""
    described: dict[str, object] = {
        "Bucket": job.key.bucket,
        "Experiment": job.key.experiment,
        "Datatype": job.key.datatype,
        "Date": f"{job.key.date.isoformat()}T00:00:00Z",
    }
    if job.filter:
        described["Filter"] = job.filter
    described["Datasets"] = {"Tmp": job.tmp, "Raw": job.raw, "Join": job.join}
    return _encode({"ID": job.id, "Job": described}).encode()


class _Endpoint:
    """One call of the API, as an ASGI application."""

    def __init__(
        self,
        make: _Make,
        commits: GroupCommit,
        bodies: "_Bodies",
        token: str | None,
    ) -> None:
        self._make = make
        self._commits = commits
        self._bodies = bodies
        self._authorization = f"Bearer {token}".encode() if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            response = await self._respond(scope, receive)
        except HTTPException as error:
            response = PlainTextResponse(error.detail, error.status_code, error.headers)
        await response(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive) -> Response:
        if scope["method"] != "POST":
            raise HTTPException(405, "expected a POST", {"Allow": "POST"})
        headers = dict(scope["headers"])
        self._check(headers.get(b"authorization", b""))
        pairs = _decode(scope["query_string"])
        if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() == _FORM:
            length = headers.get(b"content-length", b"0")
            pairs = _decode(await self._bodies.read(receive, int(length))) + pairs
        # The first value of a repeated parameter wins; the form takes precedence over the query.
        call = self._make(dict(reversed(pairs)), (scope.get("client") or ("",))[0])
        try:
            answer = await self._commits.submit(call)
        except UnavailableError as error:
            raise HTTPException(503, str(error), {"Retry-After": "5"}) from error
        return _response(call, answer)

    def _check(self, authorization: bytes) -> None:
        if self._authorization and not hmac.compare_digest(authorization, self._authorization):
            raise HTTPException(401, "expected the token", {"WWW-Authenticate": "Bearer"})


def _response(call: Call, answer: Answer) -> Response:
    match answer:
        case Job():
            if isinstance(call, Next):
                return Response(job_json(answer), media_type="application/json")
            return _OK
        case NoJob():
            return PlainTextResponse("No job found. Try again.", 500)
        case Gone():
            return PlainTextResponse("no such job, or this attempt is over\n", 410)
        case BadState():
            return PlainTextResponse(f"state {answer.state!r}: {answer.reason}\n", 400)


def _next(_: Parameters, parser: str) -> Call:
    return Next(parser)


def _update(parameters: Parameters, _: str) -> Call:
    job_id = _id(parameters)
    return Update(job_id, _required(parameters, "state"), parameters.get("detail", ""))


def _heartbeat(parameters: Parameters, _: str) -> Call:
    return Heartbeat(_id(parameters))


def _error(parameters: Parameters, _: str) -> Call:
    job_id = _id(parameters)
    return Error(job_id, _required(parameters, "error"))


def _id(parameters: Parameters) -> str:
    if not (job_id := parameters.get("id")):
        raise HTTPException(422, "expected a parameter id")
    return job_id


def _required(parameters: Parameters, name: str) -> str:
    if not (value := parameters.get(name)):
        raise HTTPException(424, f"expected a parameter {name}")
    return value


def _decode(encoded: bytes) -> list[tuple[str, str]]:
    if not encoded:
        return []
    if bad := _BAD_ESCAPE.search(encoded):
        raise HTTPException(400, f"a bad escape at byte {bad.start()}: expected % and two digits")
    try:
        return parse_qsl(
            encoded.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=_MAX_FIELDS
        )
    except ValueError as error:
        raise HTTPException(400, f"more than {_MAX_FIELDS} parameters") from error


class _Bodies:
    """Reads forms, with limits on the size and the time of each and on the memory of all."""

    def __init__(self) -> None:
        self._reading = 0

    async def read(self, receive: Receive, length: int) -> bytes:
        """Read the body of a request.

        Args:
            receive: The request's ASGI ``receive``.
            length: The request's ``Content-Length``; 0 if it has none.

        Raises:
            HTTPException: It is too large, too slow or incomplete, or there are too many.
        """
        if length > MAX_BODY:
            raise HTTPException(413, f"expected a form of at most {MAX_BODY} bytes")
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise HTTPException(400, "the form was cut off")
                    chunk: bytes = message.get("body", b"")
                    self._reading += len(chunk)
                    body += chunk
                    if len(body) > MAX_BODY:
                        raise HTTPException(413, f"expected a form of at most {MAX_BODY} bytes")
                    if self._reading > MAX_BODIES:
                        raise HTTPException(503, "too many forms at once", {"Retry-After": "5"})
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError as error:
            raise HTTPException(408, f"the form took over {BODY_SECONDS:.0f} s") from error
        finally:
            self._reading -= len(body)
