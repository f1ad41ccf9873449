"""Go clients, which read an answer's body only after they have given up the request for it."""

import datetime as dt
import json
from collections import Counter
from contextlib import closing
from urllib.parse import quote

import pytest
from go_client import Answer, GoClient, Group, build, results
from job_requests import wanted
from sidecar_process import SidecarProcess
from waiting import until

from gardener_api.config import MAX_FILTER
from gardener_api.jobs.job import JobState
from gardener_api.store.store import JobStore

NEXTS = 1_000
UPDATERS = 64
FIRST_DATE = dt.date(2000, 1, 1)


@pytest.fixture(scope="session")
def go(tmp_path_factory: pytest.TempPathFactory) -> GoClient:
    """The Go program."""
    return build(tmp_path_factory.mktemp("go"))


def opened(sidecar: SidecarProcess) -> JobStore:
    return JobStore.open(sidecar.url, lease=dt.timedelta(hours=5), max_attempts=3)


def enqueue(store: JobStore, count: int, **changed: object) -> None:
    asks = [wanted(FIRST_DATE + dt.timedelta(days=i), **changed) for i in range(count)]
    store.enqueue(asks, now=dt.datetime.now(dt.UTC))


def take(store: JobStore, count: int) -> list[str]:
    return [job.id for job in store.lease(count, now=dt.datetime.now(dt.UTC))]


def update(sidecar: SidecarProcess, job_id: str, state: str = "parsing") -> str:
    return f"{sidecar.jobs}/v2/job/update?id={quote(job_id, safe='')}&state={state}&detail=file"


def arrived(answers: dict[Answer, int]) -> list[str]:
    """The IDs of the jobs that were handed out and have arrived."""
    return [json.loads(a.body)["ID"] for a in answers if a.code == 200 and not a.error]


def test_d24_a_go_client_loses_no_job_under_load(go: GoClient, sidecar: SidecarProcess) -> None:
    with closing(opened(sidecar)) as store:
        enqueue(store, NEXTS + UPDATERS)
        urls = [update(sidecar, job_id) for job_id in take(store, UPDATERS)]
        found = go.run(
            Group(name="next", urls=[f"{sidecar.jobs}/v2/job/next"], connections=4, calls=NEXTS),
            Group(name="update", urls=urls, connections=UPDATERS),
        )
        ids = arrived(found["next"])
        lost = {a: n for a, n in found["next"].items() if a.error}
        assert not lost, f"{NEXTS - len(ids)} of {NEXTS} jobs lost"
        assert len(set(ids)) == NEXTS
        assert found["update"].keys() == {Answer(code=200, body="", error="")}
        assert store.counts() == {JobState.INIT: NEXTS, JobState.PARSING: UPDATERS}


def test_d24_the_longest_filter_reaches_a_go_client(go: GoClient, sidecar: SidecarProcess) -> None:
    filter_ = "x" * (MAX_FILTER - 2)  # and two quotation marks
    with closing(opened(sidecar)) as store:
        enqueue(store, 200, filter=filter_)
    urls = [f"{sidecar.jobs}/v2/job/next"]
    found = go.run(Group(name="next", urls=urls, connections=4, calls=200))["next"]
    assert len(set(arrived(found))) == 200
    assert {json.loads(answer.body)["Job"]["Filter"] for answer in found} == {filter_}


def test_d24_every_kind_of_answer_reaches_a_go_client(
    go: GoClient, sidecar: SidecarProcess
) -> None:
    with closing(opened(sidecar)) as store:
        enqueue(store, 1)
        [job_id] = take(store, 1)
    jobs = sidecar.jobs
    calls = {
        "next": (f"{jobs}/v2/job/next", 500, "No job found. Try again."),
        "update": (update(sidecar, job_id), 200, ""),
        "heartbeat": (f"{jobs}/heartbeat?id={quote(job_id)}", 200, ""),
        "state": (
            update(sidecar, job_id, "loading"), 400,
            "state 'loading': expected parsing or postProcessing\n",
        ),
        "escape": (f"{jobs}/heartbeat?id=%zz", 400, None),
        "gone": (update(sidecar, "b/e/d/20240301"), 410, None),
        "no id": (f"{jobs}/v2/job/heartbeat", 422, "expected a parameter id"),
        "no error": (f"{jobs}/v2/job/error?id=x", 424, "expected a parameter error"),
        "nowhere": (f"{jobs}/v2/job", 404, "Not Found"),
        "alive": (f"{jobs}/alive", 405, "Method Not Allowed"),
        "metrics": (f"{sidecar.metrics}/metrics", 405, "Method Not Allowed"),
    }  # fmt: skip
    groups = [
        Group(name=name, urls=[url], connections=4, calls=100)
        for name, (url, _, _) in calls.items()
    ]
    for name, answers in go.run(*groups).items():
        _, code, body = calls[name]
        assert len(answers) == 1, (name, answers)
        [(answer, count)] = answers.items()
        assert (answer.code, answer.error, count) == (code, "", 100), name
        assert answer.body == body or (body is None and answer.body), name


def test_d24_a_sidecar_that_ends_leaves_no_half_answers(
    go: GoClient, sidecar: SidecarProcess
) -> None:
    with closing(opened(sidecar)) as store:
        enqueue(store, 3_000)
        urls = [f"{sidecar.jobs}/v2/job/next"]
        process = go.start(Group(name="next", urls=urls, connections=16, calls=3_000))
        until(lambda: store.counts().get(JobState.INIT, 0) > 200, "no jobs were handed out")
        assert sidecar.end() == 0
        answers = results(process)["next"]
        failed = [answer for answer in answers if answer.error]
        assert failed, "it had answered all calls before it ended"
        assert Counter(answer.code for answer in failed).keys() == {0}, "half an answer"
        # Equal: whatever was handed out has arrived.
        assert store.counts()[JobState.INIT] == len(arrived(answers))
