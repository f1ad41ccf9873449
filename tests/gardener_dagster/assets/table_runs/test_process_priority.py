import multiprocessing
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor

import pytest

from gardener_dagster.assets.keys import BACKFILL_TAG, QUEUE_TAG
from gardener_dagster.assets.table_runs.process_priority import NICENESS, lower_process_priority


@pytest.mark.parametrize(
    ("tags", "by"),
    [
        ({BACKFILL_TAG: "b"}, NICENESS),
        ({QUEUE_TAG: "-10"}, NICENESS),
        ({QUEUE_TAG: "10"}, 0),
        ({}, 0),  # a person launched it
    ],
)
def test_the_process_of_a_backfill_leaves_the_processors_to_urgent_ones(
    tags: Mapping[str, str], by: int
) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        process.submit(lower_process_priority, tags).result()
        assert process.submit(os.nice, 0).result() - os.nice(0) == by


def test_a_process_that_is_not_of_the_run_alone_keeps_its_priority() -> None:
    before = os.nice(0)
    lower_process_priority({BACKFILL_TAG: "b"})
    assert os.nice(0) == before
