import datetime as dt

from gardener_api.jobs.job import JobState
from gardener_api.status.year_plot import DAYS, HEIGHT, STEP, year_plot

LAST = dt.date(2024, 3, 31)


def ago(days: int) -> dt.date:
    return LAST - dt.timedelta(days=days)


def test_each_day_of_the_year_has_its_place_and_bars_are_to_scale() -> None:
    plot = year_plot({ago(0): 50, ago(1): 100, ago(2): 0, ago(DAYS): 900}, {}, last=LAST)
    assert [day.date for day in plot.days] == [ago(back) for back in range(DAYS - 1, -1, -1)]
    assert [day.height for day in plot.days[-3:]] == [0, HEIGHT, HEIGHT / 2]
    assert plot.most == 100
    assert (plot.months[-1], len(plot.months)) == (("2024-03", (DAYS - 31) * STEP), 12)


def test_failed_missing_and_pending_days_are_marked() -> None:
    states = {
        ago(5): JobState.COMPLETE,  # its rows are an older gardener's
        ago(4): JobState.FAILED,
        ago(3): JobState.FAILED,
        ago(1): JobState.PARSING,
    }
    plot = year_plot({ago(6): 7, ago(3): 9}, states, last=LAST)
    assert plot.marked("failed") == [ago(4), ago(3)]
    assert plot.marked("pending") == [ago(1)]
    assert plot.marked("missing") == [ago(2), ago(0)]
    assert plot.days[-4].title == f"{ago(3)}: 9 rows, failed"
    assert plot.days[-1].title == f"{LAST}: no rows known, missing"


def test_a_held_day_is_marked_so_and_not_as_failed() -> None:
    plot = year_plot({ago(2): 7}, {ago(2): JobState.FAILED}, {ago(2)}, last=LAST)
    assert (plot.marked("held"), plot.marked("failed")) == ([ago(2)], [])
    assert plot.days[-3].title == f"{ago(2)}: 7 rows, held"


def test_a_source_without_rows_misses_nothing() -> None:
    plot = year_plot({}, {}, last=LAST)
    assert (plot.most, plot.marked("missing")) == (0, [])
