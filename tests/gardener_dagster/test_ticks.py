"""Ticks that are as far apart as the configuration says."""

import datetime as dt
from itertools import count, islice, pairwise

import pytest
from dagster._daemon.sensor import MIN_INTERVAL_LOOP_TIME as LOOKS_EVERY

from gardener_dagster.ticks import seconds_between

LATER = 0.05  # a tick begins after the look that finds it due


@pytest.mark.parametrize("seconds", [5, 10, 60, 1800])
def test_ticks_are_as_far_apart_as_they_are_to_be(seconds: int) -> None:
    told = seconds_between(dt.timedelta(seconds=seconds))
    ticks = [LATER]
    for look in islice(count(LOOKS_EVERY, LOOKS_EVERY), 3 * seconds):
        if look - ticks[-1] >= told:  # as Dagster compares
            ticks.append(look + LATER)
    assert {round(after - before, 3) for before, after in pairwise(ticks)} == {seconds}


@pytest.mark.parametrize("seconds", [0.2, 1, 2])
def test_more_often_than_dagster_looks_is_as_often_as_it_looks(seconds: float) -> None:
    assert seconds_between(dt.timedelta(seconds=seconds)) == 1 < LOOKS_EVERY
