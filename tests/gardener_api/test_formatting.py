import datetime as dt

import pytest
from sqlalchemy.exc import OperationalError

from gardener_api.formatting import count_jobs, human_bytes, human_duration, one_line, spans


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (3601, "1 h"),
        (11_520, "3 h 12 min"),
        (86_400, "1 d"),
        (180_000, "2 d 2 h"),
    ],
)
def test_human_duration(seconds: int, text: str) -> None:
    assert human_duration(dt.timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e12, "2.5 TB")]
)
def test_human_bytes(size: int, text: str) -> None:
    assert human_bytes(size) == text


@pytest.mark.parametrize(
    ("days", "text"),
    [
        ([], ""),
        ([1], "2024-03-01"),
        ([3, 1, 2, 9], "2024-03-01 to 2024-03-03, 2024-03-09"),
    ],
)
def test_spans(days: list[int], text: str) -> None:
    assert spans(dt.date(2024, 3, day) for day in days) == text


def test_count_jobs() -> None:
    assert [count_jobs(n) for n in (0, 1, 1234)] == ["0 jobs", "1 job", "1,234 jobs"]


def test_an_error_on_one_line() -> None:
    cause = Exception("connection failed:\n\tIs the server running?\n")
    assert one_line(OperationalError("SELECT", {}, cause)) == (
        "connection failed: Is the server running"
    )
    assert one_line(ValueError("no URL.")) == "no URL"
