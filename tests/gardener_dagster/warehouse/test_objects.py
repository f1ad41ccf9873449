"""Which objects are of this parse, and how a load job can name them (D11)."""

import datetime as dt
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gardener_dagster.warehouse.objects import (
    MAXIMUM_URIS,
    LoadSource,
    ParsedObject,
    choose_objects,
    cover,
)

START = dt.datetime(2024, 3, 2, 10, 30, tzinfo=dt.UTC)
PREFIX = "ndt/ndt7/2024/03/01/"
Choose = Callable[[Iterable[ParsedObject], Iterable[str]], LoadSource]


def archive(number: int) -> str:
    return f"{PREFIX}20240301T{number:06d}.1Z-ndt7-mlab1-lga01-ndt.tgz"


def parsed(name: str, minutes: float = 5, **more: object) -> ParsedObject:
    written = START + dt.timedelta(minutes=minutes)
    return ParsedObject(name=f"archives/{name}.jsonl", written=written, size=10, **more)  # type: ignore[arg-type]


@pytest.fixture
def choose() -> Choose:
    def call(objects: Iterable[ParsedObject], archives: Iterable[str]) -> LoadSource:
        return choose_objects(
            objects,
            output_bucket="out",
            source_bucket="archives",
            prefix=PREFIX,
            archives=archives,
            parse_started=START,
        )

    return call


def test_where_nothing_is_left_out_one_wildcard_names_all(choose: Choose) -> None:
    source = choose([parsed(archive(n)) for n in range(12_000)], map(archive, range(12_000)))
    assert source.uris == (f"gs://out/archives/{PREFIX}*",)
    assert (source.objects, source.size) == (12_000, 120_000)


def test_no_objects_no_uris(choose: Choose) -> None:
    source = choose([], [archive(1)])
    assert source.uris == ()
    assert source.missing == (archive(1),)


def test_d11_an_object_older_than_the_parse_is_left_out_and_reported(choose: Choose) -> None:
    old = parsed(archive(2), minutes=-10)
    source = choose([parsed(archive(1)), old], [archive(1), archive(2)])
    assert source.uris == (f"gs://out/archives/{archive(1)}.jsonl",)
    assert source.stale == (old.name,)
    assert source.missing == (archive(2),)


def test_d11_an_object_of_no_archive_is_left_out_and_reported(choose: Choose) -> None:
    orphan = parsed(archive(2))
    source = choose([parsed(archive(1)), orphan], [archive(1)])
    assert source.uris == (f"gs://out/archives/{archive(1)}.jsonl",)
    assert source.orphaned == (orphan.name,)


def test_clocks_may_differ_a_little(choose: Choose) -> None:
    source = choose([parsed(archive(1), minutes=-0.5)], [archive(1)])
    assert not source.stale


def test_what_the_parser_could_not_write_whole_is_loaded_and_reported(choose: Choose) -> None:
    source = choose([parsed(archive(1), write_error="disk full")], [archive(1)])
    assert source.objects == 1
    assert source.write_errors == (f"archives/{archive(1)}.jsonl: disk full",)


def test_d11_a_date_with_more_than_10000_objects_and_a_stale_one_fits_a_load_job(
    choose: Choose,
) -> None:
    objects = [parsed(archive(n), minutes=-60 if n == 6_789 else 5) for n in range(12_000)]
    source = choose(objects, map(archive, range(12_000)))
    assert 1 < len(source.uris) < 100
    assert source.objects == 11_999
    loaded = {item.name for item in objects if matches(source.uris, f"gs://out/{item.name}")}
    assert loaded == {item.name for item in objects} - set(source.stale)


def matches(uris: Iterable[str], name: str) -> bool:
    return any(name.startswith(uri[:-1]) if uri.endswith("*") else name == uri for uri in uris)


NAMES = st.sets(st.text(alphabet="abc/", min_size=1, max_size=6), max_size=60)


@given(wanted=NAMES, excluded=NAMES)
def test_a_cover_matches_all_that_is_wanted_and_nothing_else(
    wanted: set[str], excluded: set[str]
) -> None:
    excluded -= wanted
    uris = cover(sorted(wanted), sorted(excluded))
    assert len(uris) <= len(wanted)
    assert {name for name in wanted | excluded if matches(uris, name)} == wanted


def test_the_limit_is_bigquerys() -> None:
    assert MAXIMUM_URIS == 10_000
