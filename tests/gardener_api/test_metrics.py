import datetime as dt
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient

from gardener_api.calls import Error, Update
from gardener_api.config import GardenerConfig
from gardener_api.jobs import Ask, JobKey, JobState
from gardener_api.metrics import Labels, create_metrics_app, render
from gardener_api.store import JobStore

MakeAsk = Callable[..., Ask]
MakeKey = Callable[..., JobKey]


@pytest.fixture
def scrape(store: JobStore, config: GardenerConfig) -> Callable[[], list[str]]:
    client = TestClient(create_metrics_app(config, store))

    def lines() -> list[str]:
        response = client.get("/metrics")
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
        return [line for line in response.text.splitlines() if not line.startswith("#")]

    return lines


def test_at_the_start(scrape: Callable[[], list[str]]) -> None:
    assert scrape() == [
        'gardener_config_datatypes{experiment="ndt",datatype="annotation2"} 1',
        'gardener_config_datatypes{experiment="ndt",datatype="ndt7"} 1',
        'gardener_jobs_total{experiment="",datatype="",daily="",status="starting"} 0',
    ]


def test_lives(
    scrape: Callable[[], list[str]],
    store: JobStore,
    make_ask: MakeAsk,
    make_key: MakeKey,
    now: dt.datetime,
) -> None:
    store.enqueue([make_ask(day) for day in range(1, 6)], now=now)
    one, two, three, _ = store.lease(4, now=now)
    store.apply([Update(one.id, "postProcessing"), Update(two.id, "postProcessing")], now=now)
    for state in (JobState.LOADING, JobState.COMPLETE):
        store.stage(make_key(1), state, run_id="t", now=now)
    store.stage(make_key(2), JobState.LOADING, run_id="t", now=now)
    store.fail_stage(make_key(2), "No such field: x", run_id="t", now=now)
    store.apply([Error(three.id, "no disk")], now=now)
    lines = scrape()
    source = 'experiment="ndt",datatype="ndt7"'
    for line in (
        f'gardener_tasks_in_flight{{{source},state="init"}} 1',
        f'gardener_tasks_in_flight{{{source},state="queued"}} 2',
        f'gardener_tasks_in_flight{{{source},state="loading-failed"}} 1',
        f"gardener_started_total{{{source}}} 4",
        f"gardener_completed_total{{{source}}} 1",
        f'gardener_fail_total{{{source},status="loading-failed"}} 1',
        f'gardener_warning_total{{{source},status="parseError"}} 1',
        f'gardener_jobs_total{{{source},daily="false",status="success"}} 1',
        f'gardener_jobs_total{{{source},daily="false",status="loading-failed"}} 1',
        'gardener_jobs_total{experiment="",datatype="",daily="",status="starting"} 0',
        f'gardener_state_date{{{source},state="complete"}} 1709251200',
        f'gardener_state_date{{{source},state="init"}} 1709510400',
    ):
        assert line in lines
    assert not [line for line in lines if 'state="complete"} 1' in line and "in_flight" in line]


def test_a_job_that_is_handed_out_twice_counts_twice(
    scrape: Callable[[], list[str]], store: JobStore, make_ask: MakeAsk, now: dt.datetime
) -> None:
    store.enqueue([make_ask()], now=now)
    [job] = store.lease(1, now=now)
    store.apply([Error(job.id, "x")], now=now)
    store.lease(1, now=now)
    assert 'gardener_started_total{experiment="ndt",datatype="ndt7"} 2' in scrape()


def test_labels_are_escaped() -> None:
    samples: dict[Labels, float] = {(("status", 'a "quote", a \\ and\na line'),): 0.5}
    assert render([("m", "counter", "Help.", samples)]) == (
        '# HELP m Help.\n# TYPE m counter\nm{status="a \\"quote\\", a \\\\ and\\na line"} 0.5\n'
    )
