import datetime as dt
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gardener_api.jobs.job import JobState
from gardener_api.status.filters import MOST_PAGES, SORTS, FilterError, JobFilter
from gardener_api.store.queries.job_queries import JobOrder

FIRST, LAST = dt.date(2024, 3, 1), dt.date(2024, 3, 4)


def test_nothing() -> None:
    wanted = JobFilter.parse({})
    assert wanted == JobFilter()
    assert wanted.query() == ""
    assert not wanted.narrowed


def test_everything() -> None:
    query = {
        "experiment": "ndt",
        "datatype": " ndt7 ",
        "from": "2024-03-01",
        "to": "2024-03-04",
        "state": "failed,loading,failed",
        "text": "no\0 disk & more",
        "sort": "-date",
        "page": "3",
        "utm": "ignored",
    }
    wanted = JobFilter.parse(query)
    assert wanted == JobFilter(
        experiment="ndt",
        datatype="ndt7",
        first=FIRST,
        last=LAST,
        states=(JobState.FAILED, JobState.LOADING),
        text="no disk & more",
        order=JobOrder.DATE,
        reverse=True,
        page=3,
    )
    assert JobFilter.parse(dict(parse_qsl(wanted.query(page=3)))) == wanted
    assert wanted.narrowed


def test_one_date_is_a_range() -> None:
    wanted = JobFilter.parse({"date": "2024-03-01"})
    assert (wanted.first, wanted.last) == (FIRST, FIRST)
    assert wanted.query() == "from=2024-03-01&to=2024-03-01"


def test_another_filter_begins_at_the_first_page() -> None:
    wanted = JobFilter(page=7, text="x")
    assert wanted.query(order=JobOrder.DATE) == "text=x&sort=date"
    assert wanted.query(page=8) == "text=x&page=8"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"state": "nonsense"}, "state 'nonsense': expected one of queued, init"),
        ({"state": "failed,"}, "state 'failed,': expected one of"),
        ({"date": "yesterday"}, "date 'yesterday': expected a date like 2024-03-01"),
        ({"from": "2024-02-30"}, "from '2024-02-30': expected a date"),
        ({"from": "2024-03-04", "to": "2024-03-01"}, "expected the earlier date first"),
        ({"page": "x"}, f"page 'x': expected a number from 0 to {MOST_PAGES}"),
        ({"page": "-1"}, "page '-1': expected"),
        ({"page": "9" * 5000}, "expected a number from 0"),
        ({"sort": "rank"}, "sort 'rank': expected one of recent, date, source, state"),
        ({"sort": "next"}, "sort 'next': expected one of"),
    ],
)
def test_what_cannot_be_used(query: dict[str, str], message: str) -> None:
    with pytest.raises(FilterError) as caught:
        JobFilter.parse(query)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 400


text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@given(
    st.builds(
        JobFilter,
        experiment=text.map(str.strip),
        text=text.map(str.strip),
        states=st.lists(st.sampled_from(JobState), unique=True, max_size=3).map(tuple),
        order=st.sampled_from(SORTS),
        reverse=st.booleans(),
        page=st.integers(0, MOST_PAGES),
    )
)
def test_what_is_written_is_read(wanted: JobFilter) -> None:
    query = dict(parse_qsl(wanted.query(page=wanted.page)))
    assert JobFilter.parse(query) == wanted
