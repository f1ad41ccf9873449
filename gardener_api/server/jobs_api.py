"""The jobs API on the wire: requests to calls, answers to codes.

Its paths, parameters, codes and JSON are those that deployed parsers use. What a call does is
decided elsewhere; here is only how it is spelled.
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
"""Bytes of a form: a detail of 1 MB is taken (and cut), even where every byte is escaped."""
MAX_BODIES = 64 * 2**20
"""Bytes of all forms that are being read."""
BODY_SECONDS = 30.0
"""For a form to arrive."""
_MAX_FIELDS = 100

_FORM = b"application/x-www-form-urlencoded"
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_OK = Response()
_encode = json.JSONEncoder(separators=(",", ":")).encode

Parameters = Mapping[str, str]
_Make = Callable[[Parameters, str], Call]
"""Makes the call of a request's parameters and the address of whoever sent it."""


def job_endpoints(commits: GroupCommit, *, token: str | None) -> Mapping[str, ASGIApp]:
    """The four calls as applications, by path; each has its path and its short name.

    A dictionary finds them: Starlette's router and its middleware took a tenth of a call's time.

    Args:
        commits: Does them.
        token: What callers must bear; ``None``: anybody may call.
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
    """A job as ``next`` answers it."""
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
        # Of a parameter that comes twice, the first counts, and the form before the query.
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
    """Reads forms, with bounds on their size, their time and the memory of all of them."""

    def __init__(self) -> None:
        self._reading = 0

    async def read(self, receive: Receive, length: int) -> bytes:
        """The body of a request that has one.

        Args:
            receive: Of the request.
            length: As the request announces it; 0 if it does not.

        Raises:
            HTTPException: It is too large, too slow, or there are too many.
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
