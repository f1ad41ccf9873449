"""The wire, as deployed parsers speak it: every request, every code, byte for byte."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest

from gardener_api.jobs.job import Job, JobKey, JobState, Priority

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
ID = "archive-mlab-oti/ndt/ndt7/20240301"
LONG = {call: f"/v2/job/{call}" for call in ("next", "update", "heartbeat", "error")}
SHORT = {"next": "/job", "update": "/update", "heartbeat": "/heartbeat", "error": "/error"}

Sidecar = Any  # the fixtures are in conftest, which cannot be imported
Post = Callable[..., Any]


@pytest.fixture(params=["query", "form"])
def post(request: pytest.FixtureRequest, sidecar: Sidecar, paths: dict[str, str]) -> Post:
    """Calls with all parameters in the query and an empty body, or all in a form."""

    def post_(call: str, **parameters: str) -> Any:
        encoded = urlencode(parameters)
        if request.param == "query":
            return sidecar.request("POST", f"{paths[call]}?{encoded}" if encoded else paths[call])
        return sidecar.request("POST", paths[call], encoded.encode(), FORM)

    return post_


@pytest.fixture(params=[LONG, SHORT], ids=["long", "short"])
def paths(request: pytest.FixtureRequest) -> dict[str, str]:
    """The path of each call."""
    found: dict[str, str] = request.param
    return found


@pytest.fixture
def job(sidecar: Sidecar) -> Callable[[], Job]:
    """The job as it is stored."""

    def stored() -> Job:
        [found] = sidecar.store.jobs(limit=10)
        assert isinstance(found, Job)
        return found

    return stored


class TestNext:
    def test_a_job(self, sidecar: Sidecar, post: Post, job: Callable[[], Job]) -> None:
        sidecar.ask()
        reply = post("next")
        assert reply.code == 200
        assert reply.body == (
            b'{"ID":"archive-mlab-oti/ndt/ndt7/20240301","Job":{"Bucket":"archive-mlab-oti",'
            b'"Experiment":"ndt","Datatype":"ndt7","Date":"2024-03-01T00:00:00Z",'
            b'"Datasets":{"Tmp":"tmp_ndt","Raw":"raw_ndt","Join":"ndt"}}}'
        )
        assert reply.headers["content-length"] == str(len(reply.body))
        assert reply.headers["content-type"] == "application/json"
        assert "transfer-encoding" not in reply.headers
        assert (job().state, job().parser) == (JobState.INIT, "127.0.0.1")

    def test_a_filter(self, sidecar: Sidecar, post: Post) -> None:
        sidecar.ask(filter=r'T00.*\.tgz$ "é<')
        assert post("next").body == (
            b'{"ID":"archive-mlab-oti/ndt/ndt7/20240301","Job":{"Bucket":"archive-mlab-oti",'
            b'"Experiment":"ndt","Datatype":"ndt7","Date":"2024-03-01T00:00:00Z",'
            b'"Filter":"T00.*\\\\.tgz$ \\"\\u00e9<",'
            b'"Datasets":{"Tmp":"tmp_ndt","Raw":"raw_ndt","Join":"ndt"}}}'
        )

    def test_no_join_dataset(self, sidecar: Sidecar, post: Post) -> None:
        sidecar.ask(join=None)
        assert post("next").body.endswith(
            b'"Datasets":{"Tmp":"tmp_ndt","Raw":"raw_ndt","Join":""}}}'
        )

    def test_nothing_to_hand_out(self, post: Post) -> None:
        reply = post("next")
        assert (reply.code, reply.body) == (500, b"No job found. Try again.")

    def test_parameters_are_ignored(self, sidecar: Sidecar, post: Post) -> None:
        sidecar.ask()
        assert post("next", id="x", what="ever").code == 200

    def test_in_the_order_of_the_queue(self, sidecar: Sidecar, post: Post) -> None:
        sidecar.ask(1, priority=Priority.HISTORICAL)
        sidecar.ask(3)
        sidecar.ask(2)
        sidecar.ask(4, priority=Priority.DAILY)
        ids = [post("next").body[:45].decode().split('"')[3] for _ in range(4)]
        assert [text[-2:] for text in ids] == ["04", "02", "03", "01"]


class TestUpdate:
    def test_parsing(self, sidecar: Sidecar, post: Post, job: Callable[[], Job]) -> None:
        sidecar.ask()
        post("next")
        reply = post("update", id=ID, state="parsing", detail="starting tasks")
        assert (reply.code, reply.body) == (200, b"")
        assert reply.headers["content-length"] == "0"
        assert (job().state, job().detail) == (JobState.PARSING, "starting tasks")

    def test_post_processing_with_an_empty_detail(
        self, sidecar: Sidecar, post: Post, job: Callable[[], Job]
    ) -> None:
        sidecar.ask()
        post("next")
        post("update", id=ID, state="parsing", detail="a.tgz")
        assert post("update", id=ID, state="postProcessing", detail="").code == 200
        assert (job().state, job().detail) == (JobState.POST_PROCESSING, "")
        assert post("update", id=ID, state="postProcessing", detail="").code == 200

    def test_a_dash_keeps_the_detail(
        self, sidecar: Sidecar, post: Post, job: Callable[[], Job]
    ) -> None:
        sidecar.ask()
        post("next")
        post("update", id=ID, state="parsing", detail="a.tgz")
        assert post("update", id=ID, state="parsing", detail="-").code == 200
        assert job().detail == "a.tgz"

    def test_without_a_detail(self, sidecar: Sidecar, post: Post) -> None:
        sidecar.ask()
        post("next")
        assert post("update", id=ID, state="parsing").code == 200

    @pytest.mark.parametrize("state", ["loading", "complete", "queued", "parseError", "nonsense"])
    def test_states_that_parsers_may_not_say(
        self, sidecar: Sidecar, post: Post, job: Callable[[], Job], state: str
    ) -> None:
        sidecar.ask()
        post("next")
        before = job()
        assert post("update", id=ID, state=state, detail="x").code == 400
        assert job() == before

    def test_backwards(self, sidecar: Sidecar, post: Post, job: Callable[[], Job]) -> None:
        sidecar.ask()
        post("next")
        post("update", id=ID, state="postProcessing")
        before = job()
        assert post("update", id=ID, state="parsing").code == 400
        assert job() == before


class TestHeartbeat:
    def test_ok(self, sidecar: Sidecar, post: Post, job: Callable[[], Job]) -> None:
        sidecar.ask()
        post("next")
        reply = post("heartbeat", id=ID)
        assert (reply.code, reply.body, reply.headers["content-length"]) == (200, b"", "0")
        assert job().state is JobState.INIT


class TestError:
    def test_ok(self, sidecar: Sidecar, post: Post, job: Callable[[], Job]) -> None:
        sidecar.ask()
        post("next")
        reply = post("error", id=ID, error="no space left")
        assert (reply.code, reply.body, reply.headers["content-length"]) == (200, b"", "0")
        assert (job().state, job().error) == (JobState.QUEUED, "no space left")
        assert post("next").body.startswith(
            b'{"ID":"archive-mlab-oti/ndt/ndt7/20240301~1.2","Job":{"Bucket"'
        )


class TestCodes:
    @pytest.mark.parametrize("call", LONG)
    @pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
    def test_not_a_post(
        self, sidecar: Sidecar, paths: dict[str, str], call: str, method: str
    ) -> None:
        sidecar.ask()
        reply = sidecar.request(method, f"{paths[call]}?id={ID}&state=parsing&error=x")
        assert reply.code == 405
        assert reply.headers["allow"] == "POST"
        assert sidecar.store.counts() == {JobState.QUEUED: 1}

    @pytest.mark.parametrize("call", LONG)
    @pytest.mark.parametrize("bad", ["id=%zz", "id=%", "id=x&y=%2", "%GG=1"])
    def test_malformed(self, sidecar: Sidecar, paths: dict[str, str], call: str, bad: str) -> None:
        sidecar.ask()
        assert sidecar.request("POST", f"{paths[call]}?{bad}").code == 400
        assert sidecar.request("POST", paths[call], bad.encode(), FORM).code == 400
        assert sidecar.store.counts() == {JobState.QUEUED: 1}

    @pytest.mark.parametrize("call", ["update", "heartbeat", "error"])
    def test_no_id(self, post: Post, call: str) -> None:
        assert post(call).code == 422
        assert post(call, state="parsing", error="x").code == 422
        assert post(call, id="", state="parsing", error="x").code == 422

    def test_update_without_state(self, post: Post) -> None:
        assert post("update", id=ID).code == 424
        assert post("update", id=ID, state="", detail="x").code == 424

    def test_error_without_error(self, post: Post) -> None:
        assert post("error", id=ID).code == 424
        assert post("error", id=ID, error="").code == 424

    def test_unknown_id(self, sidecar: Sidecar, post: Post) -> None:
        sidecar.ask()  # known, but handed to nobody
        for unknown in ("x", ID, f"{ID}~1.2", f"{ID}~9.9", "\0", "é" * 3000):
            assert post("update", id=unknown, state="parsing").code == 410
            assert post("update", id=unknown, state="nonsense").code == 410
            assert post("heartbeat", id=unknown).code == 410
            assert post("error", id=unknown, error="x").code == 410

    def test_an_attempt_that_is_over(
        self, sidecar: Sidecar, post: Post, job: Callable[[], Job]
    ) -> None:
        sidecar.ask()
        post("next")
        post("error", id=ID, error="x")
        post("next")  # another parser has it now
        before = job()
        assert post("update", id=ID, state="postProcessing").code == 410
        assert post("heartbeat", id=ID).code == 410
        assert post("error", id=ID, error="x").code == 410
        assert job() == before
        assert post("heartbeat", id=f"{ID}~1.2").code == 200

    def test_another_path(self, sidecar: Sidecar) -> None:
        for path in ("/", "/v2/job", "/v2/job/next/", "/v1/job/next", "/status", "/metrics"):
            assert sidecar.request("POST", path).code == 404


class TestParameters:
    def test_query_and_form_merge(self, sidecar: Sidecar, job: Callable[[], Job]) -> None:
        sidecar.ask()
        sidecar.request("POST", "/v2/job/next")
        reply = sidecar.request(
            "POST", f"/v2/job/update?id={ID}&detail=query", b"state=parsing&detail=form", FORM
        )
        assert reply.code == 200
        assert job().detail == "form"

    def test_the_first_of_a_name_counts(self, sidecar: Sidecar, job: Callable[[], Job]) -> None:
        sidecar.ask()
        sidecar.request("POST", "/v2/job/next")
        sidecar.request("POST", f"/update?id={ID}&id=x&state=parsing&detail=a&detail=b")
        assert job().detail == "a"

    def test_escapes(self, sidecar: Sidecar, job: Callable[[], Job]) -> None:
        sidecar.ask()
        sidecar.request("POST", "/v2/job/next")
        target = f"/update?id={ID.replace('/', '%2F')}&state=parsing&detail=a+b%2Bc%C3%A9%FF;%00"
        assert sidecar.request("POST", target).code == 200
        assert job().detail == "a b+cé\ufffd;\ufffd"

    def test_a_body_that_is_no_form_is_not_read(self, sidecar: Sidecar) -> None:
        sidecar.ask()
        json = {"Content-Type": "application/json"}
        assert sidecar.request("POST", "/v2/job/next", b'{"id": "%zz"}', json).code == 200
        assert sidecar.request("POST", f"/heartbeat?id={ID}", b"id=x").code == 200

    def test_a_form_with_a_charset(self, sidecar: Sidecar) -> None:
        sidecar.ask()
        sidecar.request("POST", "/v2/job/next")
        kind = {"Content-Type": "Application/X-WWW-Form-Urlencoded; charset=utf-8"}
        assert sidecar.request("POST", "/heartbeat", f"id={ID}".encode(), kind).code == 200


def test_a_day_as_a_deployed_parser_does_it(sidecar: Sidecar) -> None:
    sidecar.ask()
    assert sidecar.request("POST", "/v2/job/next").code == 200

    def update(state: str, detail: str) -> int:
        # The order is that of Go's url.Values.Encode: by name.
        encoded = urlencode({"detail": detail, "id": ID, "state": state})
        return int(sidecar.request("POST", f"/v2/job/update?{encoded}").code)

    assert update("parsing", "starting tasks") == 200
    for number in range(20):
        assert sidecar.request("POST", f"/v2/job/heartbeat?id={ID}").code == 200
        assert update("parsing", f"ndt/ndt7/2024/03/01/{number:02}.tgz") == 200
    assert update("postProcessing", "") == 200
    [item] = sidecar.store.parsed_jobs()
    assert item.job.key == JobKey.parse(ID)
    assert [event.state for event in sidecar.store.events(item.job.number)] == [
        "queued",
        "init",
        "parsing",
        "postProcessing",
    ]


class TestToken:
    def test_every_call_wants_it(self, start_sidecar: Callable[..., Sidecar]) -> None:
        sidecar = start_sidecar(token="secret")
        sidecar.ask()
        target = f"?id={ID}&state=parsing&error=x"
        for path in (*LONG.values(), *SHORT.values()):
            for sent in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
                reply = sidecar.request("POST", path + target, headers=sent)
                assert reply.code == 401
                assert reply.headers["www-authenticate"] == "Bearer"
        assert sidecar.store.counts() == {JobState.QUEUED: 1}
        right = {"Authorization": "Bearer secret"}
        assert sidecar.request("POST", "/v2/job/next", headers=right).code == 200
        assert sidecar.request("POST", f"/heartbeat?id={ID}", headers=right).code == 200

    def test_health_does_not(self, start_sidecar: Callable[..., Sidecar]) -> None:
        sidecar = start_sidecar(token="secret")
        assert sidecar.request("GET", "/alive").code == 200
        assert sidecar.request("GET", "/ready").code == 200
