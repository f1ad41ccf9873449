import datetime as dt

import pytest

from gardener_api.links import Links

DATE = dt.date(2024, 3, 1)


def test_where_nobody_said_where_there_are_no_links() -> None:
    links = Links()
    assert links.asset_graph() is None
    assert links.run("r") is None
    assert links.backfill("b") is None
    assert links.partition("raw_ndt/ndt7", DATE) is None
    assert links.table("raw_ndt.ndt7") is None


def test_dagster() -> None:
    links = Links(dagster_url="http://dagster:3000/prefix/")
    dagster, at_once = "http://dagster:3000/prefix", "live-data-batch-size=100"
    assert links.asset_graph() == f"{dagster}/asset-groups?{at_once}"
    assert links.run("a/b c") == f"{dagster}/runs/a%2Fb%20c?{at_once}"
    assert links.run("") is None
    assert links.backfill("bf") == f"{dagster}/runs/b/bf?{at_once}"
    assert links.partition("raw_ndt/ndt7", DATE) == (
        f"{dagster}/assets/raw_ndt/ndt7?view=partitions&partition=2024-03-01&{at_once}"
    )


def test_google() -> None:
    links = Links(project="mlab")
    assert links.table("raw_ndt.ndt7") == (
        "https://console.cloud.google.com/bigquery?project=mlab&p=mlab&d=raw_ndt&t=ndt7&page=table"
    )
    assert links.archives("b", "ndt/ndt7/2024/03/01/") == (
        "https://console.cloud.google.com/storage/browser/b/ndt/ndt7/2024/03/01/"
    )


@pytest.mark.parametrize("url", ["dagster:3000", "javascript:alert(1)", "http://", ""])
def test_no_url(url: str) -> None:
    with pytest.raises(ValueError, match=r"expected one like http://dagster:3000"):
        Links(dagster_url=url)


def test_the_status_page() -> None:
    assert Links().jobs("ndt", "ndt7") is None
    links = Links(status_url="http://sidecar:8081/")
    assert links.jobs("ndt", "ndt7") == (
        "http://sidecar:8081/jobs?experiment=ndt&datatype=ndt7&sort=date"
    )
    with pytest.raises(ValueError, match=r"status page's URL 'sidecar': expected one like http"):
        Links(status_url="sidecar")
