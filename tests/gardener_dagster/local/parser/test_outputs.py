import dataclasses
import datetime as dt
import gzip
import json
import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from google.api_core.exceptions import NotFound
from google.cloud.storage import Bucket

from gardener_api.client import LeasedJob
from gardener_dagster.local.parser import outputs
from gardener_dagster.local.parser.outputs import ArchiveParser, Outcome, detail_of

Tgz = Callable[[Mapping[str, bytes]], bytes]
NOW = dt.datetime(2024, 3, 3, 12, tzinfo=dt.UTC)
NAME = "ndt/annotation2/2024/03/02/20240302T223853.425987Z-annotation2-mlab1-lga05-ndt.tgz"
JOB = LeasedJob(
    id="any",
    bucket="archive-mlab",
    experiment="ndt",
    datatype="annotation2",
    date=dt.date(2024, 3, 2),
    filter="",
    tmp="tmp_ndt",
    raw="raw_ndt",
    join="",
)


@pytest.fixture
def parser(bucket: Bucket) -> ArchiveParser:
    return ArchiveParser(client=bucket.client, output_bucket="etl-mlab", now=lambda: NOW)


@pytest.fixture
def put(bucket: Bucket) -> Callable[[bytes], None]:
    return lambda archive: bucket.blob(NAME).upload_from_string(archive)


def go_on() -> None:
    pass


def written(bucket: Bucket) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The rows and the metadata of the one object that there is."""
    [blob] = bucket.client.list_blobs("etl-mlab")
    assert blob.name == f"archive-mlab/{NAME}.jsonl"
    content = blob.download_as_bytes()
    assert content.endswith(b"\n") or not content
    return [json.loads(line) for line in content.split(b"\n")[:-1]], blob.metadata


def annotations(count: int) -> dict[str, bytes]:
    return {f"2024/03/02/{n}.json": json.dumps({"UUID": f"u{n}"}).encode() for n in range(count)}


def test_one_object_of_one_line_a_test(
    parser: ArchiveParser, bucket: Bucket, put: Callable[[bytes], None], tgz: Tgz
) -> None:
    archive = tgz(annotations(3))
    put(archive)
    assert parser.parse(JOB, NAME, go_on) == Outcome(name=NAME, rows=3)
    rows, metadata = written(bucket)
    assert [row["id"] for row in rows] == ["u0", "u1", "u2"]
    assert {row["date"] for row in rows} == {"2024-03-02"}
    assert metadata == {"rows": "3"}
    assert rows[1]["parser"] | {"Version": ""} == {
        "Version": "",
        "Time": "2024-03-03T12:00:00Z",
        "ArchiveURL": f"gs://archive-mlab/{NAME}",
        "Filename": "2024/03/02/1.json",
        "Priority": 0,
        "GitCommit": "",
        "ArchiveSize": len(archive),
        "FileSize": len(b'{"UUID": "u1"}'),
    }


def test_a_corrupt_test_is_counted_and_left_out(
    parser: ArchiveParser,
    bucket: Bucket,
    put: Callable[[bytes], None],
    tgz: Tgz,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second = annotations(2).items()
    bad = {"bad.json": b'{"UUID": "x"', "packed.json.gz": b"no"}
    put(tgz(dict([first, *bad.items(), second])))
    assert parser.parse(JOB, NAME, go_on) == Outcome(name=NAME, rows=2, corrupt=2)
    rows, metadata = written(bucket)
    assert [row["id"] for row in rows] == ["u0", "u1"]
    assert metadata == {"rows": "2"}
    assert f"gs://archive-mlab/{NAME}: left out: bad.json is not JSON" in caplog.text


def test_what_can_be_read_of_a_truncated_archive_is_written(
    parser: ArchiveParser, bucket: Bucket, put: Callable[[bytes], None], tgz: Tgz
) -> None:
    chance = random.Random(1)
    files = annotations(4) | {"noise.json": chance.randbytes(100_000)} | {"last.json": b"{}"}
    archive = tgz(files)
    put(archive[: len(archive) // 2])
    outcome = parser.parse(JOB, NAME, go_on)
    assert (outcome.rows, outcome.written) == (4, True)
    assert outcome.fault
    assert written(bucket)[1] == {"rows": "4"}


def test_of_what_is_no_archive_nothing_is_written(
    parser: ArchiveParser, bucket: Bucket, put: Callable[[bytes], None]
) -> None:
    put(b"this is no archive")
    outcome = parser.parse(JOB, NAME, go_on)
    assert (outcome.rows, outcome.written) == (0, False)
    assert outcome.fault
    assert list(bucket.client.list_blobs("etl-mlab")) == []


def test_an_archive_that_was_deleted_meanwhile(parser: ArchiveParser) -> None:
    assert parser.parse(JOB, NAME, go_on).written is False


def test_an_empty_archive_has_an_empty_object(
    parser: ArchiveParser, bucket: Bucket, put: Callable[[bytes], None], tgz: Tgz
) -> None:
    put(tgz({}))
    assert parser.parse(JOB, NAME, go_on) == Outcome(name=NAME)
    assert written(bucket) == ([], {"rows": "0"})


def test_a_second_parse_overwrites_the_first(
    parser: ArchiveParser, bucket: Bucket, put: Callable[[bytes], None], tgz: Tgz
) -> None:
    for count in (5, 2):
        put(tgz(annotations(count)))
        parser.parse(JOB, NAME, go_on)
    rows, metadata = written(bucket)
    assert len(rows) == 2
    assert metadata == {"rows": "2"}


def test_what_the_checkpoint_raises_ends_it_and_nothing_is_written(
    parser: ArchiveParser, bucket: Bucket, put: Callable[[bytes], None], tgz: Tgz
) -> None:
    class EnoughError(Exception):
        pass

    calls = iter([None, None, EnoughError()])

    def checkpoint() -> None:
        if error := next(calls):
            raise error

    put(tgz(annotations(3)))
    with pytest.raises(EnoughError):
        parser.parse(JOB, NAME, checkpoint)
    assert list(bucket.client.list_blobs("etl-mlab")) == []


def test_an_archive_larger_than_what_is_read_at_once(
    parser: ArchiveParser,
    bucket: Bucket,
    put: Callable[[bytes], None],
    tgz: Tgz,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outputs, "_READ_BYTES", 2**18)  # the least that Cloud Storage allows
    monkeypatch.setattr(outputs, "_SPOOL_BYTES", 1000)
    chance = random.Random(1)
    noise = {f"noise{n}.json.gz": chance.randbytes(100_000) for n in range(9)}
    put(tgz(annotations(40) | noise | {"last.json": b'{"UUID": "last"}'}))
    assert parser.parse(JOB, NAME, go_on) == Outcome(name=NAME, rows=41, corrupt=9)
    assert written(bucket)[0][-1]["id"] == "last"


def test_a_row_that_bigquery_would_refuse_is_left_out(
    parser: ArchiveParser,
    bucket: Bucket,
    put: Callable[[bytes], None],
    tgz: Tgz,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outputs, "MAX_ROW_BYTES", 1000)
    large = gzip.compress(json.dumps({"UUID": "u" * 1000}).encode())
    put(tgz({"large.json.gz": large, **annotations(1)}))
    assert parser.parse(JOB, NAME, go_on) == Outcome(name=NAME, rows=1, corrupt=1)


def test_text_stays_what_it_is_and_lines_stay_lines(
    parser: ArchiveParser, bucket: Bucket, put: Callable[[bytes], None], tgz: Tgz
) -> None:
    city = "Köln\n\u2028 😀"
    content = json.dumps({"UUID": "u", "Client": {"Geo": {"City": city, "PostalCode": "\ud800"}}})
    put(tgz({"a.json": content.encode()}))
    parser.parse(JOB, NAME, go_on)
    [row], _ = written(bucket)
    assert row["client"]["Geo"] == {"City": city, "PostalCode": r"\ud800"}


def test_ids_that_differ_in_half_a_character_stay_different(
    parser: ArchiveParser, bucket: Bucket, put: Callable[[bytes], None], tgz: Tgz
) -> None:
    ids = ("u\ud800", "u\ud801")
    put(tgz({f"{n}.json": json.dumps({"UUID": id_}).encode() for n, id_ in enumerate(ids)}))
    assert parser.parse(JOB, NAME, go_on).rows == 2
    rows, _ = written(bucket)
    assert len({row["id"] for row in rows}) == 2


def test_d38_a_test_of_a_time_that_bigquery_cannot_hold_is_left_out_and_the_rest_is_written(
    bucket: Bucket, put: Callable[[bytes], None], tgz: Tgz
) -> None:
    parser = ArchiveParser(client=bucket.client, output_bucket="etl-mlab", now=lambda: NOW)
    good, bad = (
        json.dumps({"ID": uuid, "Timestamp": time}).encode()
        for uuid, time in (("a", "0001-01-01T00:00:00Z"), ("b", "0001-01-01T00:00:00+05:00"))
    )
    put(tgz({"a.json": good, "b.json": bad, "c.json": good}))
    job = dataclasses.replace(JOB, datatype="hopannotation2")
    outcome = parser.parse(job, NAME, go_on)
    assert (outcome.rows, outcome.corrupt) == (2, 1)
    assert [row["ID"] for row in written(bucket)[0]] == ["a", "a"]
    assert detail_of([outcome]) == "1 corrupt test left out"


def test_d35_the_detail_names_damaged_archives_and_stays_short() -> None:
    good = [Outcome(name="ndt/ndt7/good.tgz", rows=3)]
    damaged = [
        Outcome(name=f"ndt/ndt7/{n:02}.tgz", rows=n, fault="it ends without an end mark")
        for n in range(40)
    ]
    assert detail_of(good) == ""
    assert detail_of([*good, damaged[7]]) == (
        "damaged archives: 1 of 2: 07.tgz (it ends without an end mark; 7 rows kept)"
    )
    many = detail_of(damaged)
    assert many.startswith("damaged archives: 40 of 40: 00.tgz (")
    assert many.endswith("and 32 more: see the parser's log")
    assert len(many) < 2000


def test_a_bucket_that_is_not_there_is_an_error(
    bucket: Bucket, put: Callable[[bytes], None], tgz: Tgz
) -> None:
    put(tgz(annotations(1)))
    parser = ArchiveParser(client=bucket.client, output_bucket="no-such-bucket", now=lambda: NOW)
    with pytest.raises(NotFound):
        parser.parse(JOB, NAME, go_on)
