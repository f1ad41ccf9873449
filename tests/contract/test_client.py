"""The Python client against a real sidecar, and against one that fails in all ways."""

import datetime as dt
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gardener_api.client import JobGone, JobsAPIError, JobsClient, LeasedJob
from gardener_api.jobs.job import JobState

Sidecar = Any  # the fixtures are in conftest, which cannot be imported
ID = "archive-mlab-oti/ndt/ndt7/20240301"
JOB = (
    '{"ID":"x","Job":{"Bucket":"b","Experiment":"ndt","Datatype":"ndt7",'
    '"Date":"2024-03-01T00:00:00Z","Datasets":{"Tmp":"t","Raw":"r"}}}'
)


@pytest.fixture
def client(sidecar: Sidecar) -> Iterator[JobsClient]:
    with JobsClient(f"http://127.0.0.1:{sidecar.ports.jobs}/") as client:
        yield client


class TestAgainstASidecar:
    def test_a_day(self, sidecar: Sidecar, client: JobsClient) -> None:
        assert client.next() is None
        sidecar.ask(filter="T00")
        job = client.next()
        assert job == LeasedJob(
            id=ID,
            bucket="archive-mlab-oti",
            experiment="ndt",
            datatype="ndt7",
            date=dt.date(2024, 3, 1),
            filter="T00",
            tmp="tmp_ndt",
            raw="raw_ndt",
            join="ndt",
        )
        assert job.prefix == "ndt/ndt7/2024/03/01/"
        client.update(job.id, JobState.PARSING, "é & ü")
        client.heartbeat(job.id)
        [stored] = sidecar.store.jobs(limit=1)
        assert (stored.state, stored.detail) == (JobState.PARSING, "é & ü")
        client.update(job.id, "postProcessing")
        [stored] = sidecar.store.jobs(limit=1)
        assert (stored.state, stored.detail) == (JobState.POST_PROCESSING, "")

    def test_an_error(self, sidecar: Sidecar, client: JobsClient) -> None:
        sidecar.ask()
        job = client.next()
        assert job is not None
        client.error(job.id, "no disk")
        [stored] = sidecar.store.jobs(limit=1)
        assert (stored.state, stored.error) == (JobState.QUEUED, "no disk")
        over = pytest.raises(JobGone, match="this attempt is over")
        with over:
            client.error(job.id, "again")
        with over:
            client.heartbeat(job.id)
        with over:
            client.update(job.id, "parsing")

    def test_a_refusal(self, sidecar: Sidecar, client: JobsClient) -> None:
        sidecar.ask()
        job = client.next()
        assert job is not None
        with pytest.raises(JobsAPIError, match=r"answered 400: state 'loading': expected parsing"):
            client.update(job.id, JobState.LOADING)

    def test_a_long_detail(self, sidecar: Sidecar, client: JobsClient) -> None:
        sidecar.ask()
        job = client.next()
        assert job is not None
        client.update(job.id, "parsing", "é" * 1_000_000)
        [stored] = sidecar.store.jobs(limit=1)
        assert stored.detail == "é" * 2000

    def test_a_token(
        self,
        start_sidecar: Callable[..., Sidecar],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        # What requests finds there would replace a mere header.
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login someone password else\n")
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        url = f"http://127.0.0.1:{start_sidecar(token='secret').ports.jobs}"
        with JobsClient(url, token="secret") as right:
            assert right.next() is None
        with JobsClient(url) as none, pytest.raises(JobsAPIError, match="answered 401"):
            none.next()


class Broken:
    """A server that answers from a list; ``None`` cuts the connection after the request."""

    def __init__(self, answers: list[tuple[int, str] | None]) -> None:
        self.asked: list[str] = []
        broken = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                size = int(self.headers.get("Content-Length", 0))
                broken.asked.append(f"{self.path}?{self.rfile.read(size).decode()}")
                answer = answers.pop(0)
                if answer is None:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                code, body = answer
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def client(self, retries: int = 3) -> JobsClient:
        port = self.server.server_address[1]
        return JobsClient(f"http://127.0.0.1:{port}", timeout=20, retries=retries, backoff=0.001)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def broken() -> Iterator[Callable[..., Broken]]:
    made: list[Broken] = []

    def make(*answers: tuple[int, str] | None) -> Broken:
        made.append(Broken(list(answers)))
        return made[-1]

    yield make
    for server in made:
        server.close()


class TestAgainstAFailingSidecar:
    @pytest.mark.parametrize("failure", [None, (502, ""), (503, "busy"), (504, ""), (429, "")])
    def test_what_is_safe_to_repeat_is_repeated(
        self, broken: Callable[..., Broken], failure: tuple[int, str] | None
    ) -> None:
        server = broken(failure, failure, (200, ""), failure, (200, ""), failure, (200, ""))
        with server.client() as client:
            client.update("x", "parsing", "d")
            client.heartbeat("x")
            client.error("x", "no disk")
        assert server.asked == [
            *["/v2/job/update?id=x&state=parsing&detail=d"] * 3,
            *["/v2/job/heartbeat?id=x"] * 2,
            *["/v2/job/error?id=x&error=no+disk"] * 2,
        ]

    @pytest.mark.parametrize("failure", [None, (503, "busy")])
    def test_next_is_not(
        self, broken: Callable[..., Broken], failure: tuple[int, str] | None
    ) -> None:
        server = broken(failure, (200, JOB))
        with server.client() as client:
            with pytest.raises(JobsAPIError):
                client.next()
            assert len(server.asked) == 1
            job = client.next()
        assert job is not None
        assert (job.id, job.filter, job.join) == ("x", "", "")

    def test_it_gives_up(self, broken: Callable[..., Broken]) -> None:
        server = broken(*[(503, "busy")] * 3)
        failing = pytest.raises(JobsAPIError, match="answered 503: busy")
        with server.client(retries=2) as client, failing:
            client.heartbeat("x")
        assert len(server.asked) == 3

    @pytest.mark.parametrize("code", [400, 401, 404, 410, 422, 424, 500])
    def test_a_refusal_is_not_repeated(self, broken: Callable[..., Broken], code: int) -> None:
        server = broken((code, "no"))
        with server.client() as client, pytest.raises(JobsAPIError):
            client.heartbeat("x")
        assert len(server.asked) == 1

    def test_an_error_whose_answer_was_lost_is_done(self, broken: Callable[..., Broken]) -> None:
        server = broken(None, (410, "over"))
        with server.client() as client:
            client.error("x", "no disk")
        assert len(server.asked) == 2

    def test_an_error_that_came_too_late_is_told(self, broken: Callable[..., Broken]) -> None:
        server = broken((410, "over"))
        with server.client() as client, pytest.raises(JobGone, match="over"):
            client.error("x", "no disk")

    @pytest.mark.parametrize("body", ["", "[]", "{}", '{"ID":"x","Job":{}}', JOB[:-20], "<html>"])
    def test_an_answer_that_is_no_job(self, broken: Callable[..., Broken], body: str) -> None:
        with (
            broken((200, body)).client() as client,
            pytest.raises(JobsAPIError, match="answered no job"),
        ):
            client.next()

    def test_another_500_is_an_error(self, broken: Callable[..., Broken]) -> None:
        with (
            broken((500, "Internal Server Error")).client() as client,
            pytest.raises(JobsAPIError, match="answered 500: Internal"),
        ):
            client.next()

    def test_nobody_there(self) -> None:
        with (
            JobsClient("http://127.0.0.1:1", retries=1, backoff=0.001) as client,
            pytest.raises(JobsAPIError, match=r"http://127\.0\.0\.1:1 was not reached"),
        ):
            client.heartbeat("x")

    def test_a_sidecar_that_never_answers(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with (
                JobsClient(url, timeout=0.05, retries=1, backoff=0.001) as client,
                pytest.raises(JobsAPIError, match="was not reached"),
            ):
                client.heartbeat("x")
