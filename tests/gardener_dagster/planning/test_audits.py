import datetime as dt

import pytest

from gardener_api.archive import ParsedObject
from gardener_dagster.planning import audits
from gardener_dagster.warehouse.results import KeyCount, Origin

BUCKET = "archive-mlab"
A, B = (f"ndt/ndt7/2024/03/01/{name}.tgz" for name in "ab")


def written(name: str, rows: int | None = 2, size: int = 100) -> ParsedObject:
    updated = dt.datetime(2024, 3, 2, tzinfo=dt.UTC)
    return ParsedObject(
        name=f"{BUCKET}/{name}.jsonl", size=size, updated=updated, rows=rows, write_error=""
    )


def origin(name: str, version: str = "v1", rows: int = 2) -> Origin:
    return Origin(archive=f"gs://{BUCKET}/{name}", version=version, rows=rows)


@pytest.mark.parametrize(("duplicates", "passed"), [(0, True), (3, False), (-2, False)])
def test_unique_keys(duplicates: int, passed: bool) -> None:
    found = audits.unique_keys(["id"], KeyCount(rows=10, keyless=1, duplicates=duplicates))
    assert (found.passed, found.warns) == (passed, False)
    assert found.passed or "materialize tmp and raw of the date again" in found.description
    assert found.metadata == {"rows": 10, "duplicates": duplicates, "rows without a key": 1}


@pytest.mark.parametrize(
    ("rows", "archives", "objects", "passed", "warns"),
    [
        (4, 2, [written(A), written(B)], True, False),
        (0, 0, [], True, True),
        (0, 2, [written(A, rows=0), written(B)], False, False),
        (0, 1, [written(A, rows=None)], False, False),  # the parser did not count, but it wrote
    ],
)
def test_rows_present(
    rows: int, archives: int, objects: list[ParsedObject], passed: bool, warns: bool
) -> None:
    found = audits.rows_present(rows, archives, objects)
    assert (found.passed, found.warns) == (passed, warns)


def test_d36_archives_without_a_test_are_warned_of() -> None:
    found = audits.rows_present(0, 2, [written(A, rows=0), written(B, rows=0)])
    assert (found.passed, found.warns) == (False, True)
    assert "parsers found no tests in 2 archives" in found.description


def test_all_archives_parsed_and_loaded() -> None:
    found = audits.archives_parsed(
        BUCKET, [A, B], [written(A), written(B, rows=0)], [origin(A), origin("gone.tgz")]
    )
    assert found.passed
    assert found.description == "2 archives, all parsed and loaded"


def test_d21_an_archive_that_was_not_parsed_is_named() -> None:
    found = audits.archives_parsed(BUCKET, [A, B], [written(A)], [origin(A)])
    assert (found.passed, found.warns) == (False, False)
    assert found.description.startswith("1 of 2 archives were not parsed")
    assert B in found.description
    assert A not in found.description
    assert found.metadata["not parsed"] == B


def test_d21_an_archive_whose_rows_were_not_loaded_is_named() -> None:
    found = audits.archives_parsed(BUCKET, [A, B], [written(A), written(B)], [origin(A)])
    assert (found.passed, found.warns) == (False, True)
    assert found.metadata["parsed, but not in raw"] == B
    assert B in found.description


def test_of_many_archives_some_are_named_and_the_rest_counted() -> None:
    many = [f"{i:04}.tgz" for i in range(500)]
    found = audits.archives_parsed(BUCKET, many, [], [])
    assert "0009.tgz … and 490 more" in found.description
    assert str(found.metadata["not parsed"]).endswith("0099.tgz … and 400 more")


def test_one_parser_version() -> None:
    assert audits.one_parser_version([]).passed
    assert audits.one_parser_version([origin(A), origin(B)]).description == "v1: 4 rows"
    found = audits.one_parser_version([origin(A), origin(B, "v2", 5)])
    assert (found.passed, found.warns) == (False, True)
    assert "v1: 2 rows, v2: 5 rows" in found.description


@pytest.mark.parametrize(
    ("rows", "previous", "passed"),
    [(0, None, True), (99, 100, True), (98, 100, False), (200, 100, True), (0, 0, True)],
)
def test_rows_of_previous(rows: int, previous: int | None, passed: bool) -> None:
    found = audits.rows_of_previous(rows, previous, share=0.99)
    assert found.passed == passed
    assert passed or found.warns


@pytest.mark.parametrize(
    ("rows", "days", "passed"),
    [
        (100, [90, 100, 110, 0, 0, 0, 0], True),
        (49, [90, 100, 110, 0, 0, 0, 0], False),
        (201, [90, 100, 110, 0, 0, 0, 0], False),
        (1, [100, 100, 0, 0, 0, 0, 0], True),  # too few days
        (0, [100] * 7, False),
    ],
)
def test_rows_of_week(rows: int, days: list[int], passed: bool) -> None:
    found = audits.rows_of_week(rows, days, share=0.5)
    assert found.passed == passed
    assert passed or found.warns


def test_a_share_of_none_switches_the_comparison_off() -> None:
    assert audits.rows_of_week(10_000, [1] * 7, share=0).passed
    assert audits.rows_of_previous(0, 100, share=0).passed
    assert audits.annotated(100, 0, share=0).passed


def test_rows_of_raw() -> None:
    assert audits.rows_of_raw(3, 3).passed
    found = audits.rows_of_raw(4, 3)
    assert (found.passed, found.warns) == (False, False)
    assert found.description.startswith("4 rows, but raw has 3")


@pytest.mark.parametrize(
    ("rows", "annotated", "passed"), [(0, 0, True), (10, 9, True), (10, 8, False)]
)
def test_annotated(rows: int, annotated: int, passed: bool) -> None:
    found = audits.annotated(rows, annotated, share=0.9)
    assert found.passed == passed
    assert passed or found.warns
