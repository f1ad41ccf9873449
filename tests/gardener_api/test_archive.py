import datetime as dt
from collections.abc import Callable, Iterator

import pytest
from gcp_storage_emulator.server import create_server
from google.api_core.exceptions import RetryError
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import RefreshError
from google.cloud.storage import Bucket, Client
from requests import ConnectionError as RequestsConnectionError

from gardener_api.archive import ArchiveError, ArchiveListing, list_archives, list_parsed
from gardener_api.jobs.job import JobKey

MakeKey = Callable[..., JobKey]
BUCKET = "archive-mlab-oti"
PREFIX = "ndt/ndt7/2024/03/01/"


@pytest.fixture(scope="module")
def storage() -> Iterator[str]:
    """A storage server; its URL."""
    server = create_server("127.0.0.1", 0, in_memory=True)
    server.start()
    host, port = server._api._httpd.server_address
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def client(storage: str) -> Iterator[Client]:
    client = Client(
        project="test",
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": storage},
    )
    yield client
    for bucket in client.list_buckets():
        bucket.delete(force=True)
    client.close()


@pytest.fixture
def bucket(client: Client) -> Bucket:
    return client.create_bucket(BUCKET)


def put(bucket: Bucket, name: str, content: str = "x", **metadata: str) -> None:
    blob = bucket.blob(name)
    blob.metadata = metadata
    blob.upload_from_string(content)


class TestArchives:
    def test_those_of_the_day(self, client: Client, bucket: Bucket) -> None:
        put(bucket, f"{PREFIX}a.tgz", "abc")
        put(bucket, f"{PREFIX}b.tgz", "de")
        put(bucket, PREFIX, "")  # what a console makes for an empty folder
        put(bucket, "ndt/ndt7/2024/03/02/c.tgz")
        put(bucket, "ndt/ndt5/2024/03/01/d.tgz")
        listing = list_archives(client, BUCKET, PREFIX)
        assert listing == ArchiveListing(names=(f"{PREFIX}a.tgz", f"{PREFIX}b.tgz"), bytes=5)
        assert listing.count == 2

    def test_none(self, client: Client, bucket: Bucket) -> None:
        assert list_archives(client, BUCKET, PREFIX) == ArchiveListing(names=(), bytes=0)

    @pytest.mark.parametrize(
        ("filter", "found"),
        [
            ("", ["a-1.tgz", "b.tgz"]),
            ("b.tgz", ["b.tgz"]),
            (r"a-\d", ["a-1.tgz"]),
            ("^ndt/ndt7/.*/a", ["a-1.tgz"]),
            ("^a", []),
            ("/a|/b", ["a-1.tgz", "b.tgz"]),
            # D37: as Go reads them; Python's re finds nothing with these, or does not take them.
            (r"a-[[:digit:]]", ["a-1.tgz"]),
            (r"b\.tgz\z", ["b.tgz"]),
            (r"/\pL\.", ["b.tgz"]),
            (r"/(?P<name>[[:alpha:]])\.", ["b.tgz"]),
        ],
    )
    def test_the_filter_is_found_anywhere_in_the_whole_name(
        self, client: Client, bucket: Bucket, filter: str, found: list[str]
    ) -> None:
        for name in ("a-1.tgz", "b.tgz"):
            put(bucket, f"{PREFIX}{name}")
        names = list_archives(client, BUCKET, PREFIX, filter).names
        assert [name.removeprefix(PREFIX) for name in names] == found

    def test_no_bucket_is_an_error(self, client: Client) -> None:
        with pytest.raises(ArchiveError, match=rf"gs://{BUCKET}/{PREFIX} could not be listed: 404"):
            list_archives(client, BUCKET, PREFIX)

    @pytest.mark.parametrize(
        "failure",
        [RequestsConnectionError("refused"), RefreshError("no login"), RetryError("gave up", None)],
    )
    def test_whatever_fails_is_an_error(
        self, client: Client, monkeypatch: pytest.MonkeyPatch, failure: Exception
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise failure

        monkeypatch.setattr(client._connection, "api_request", fail)
        with pytest.raises(ArchiveError, match=f"gs://{BUCKET}/{PREFIX} could not be listed") as e:
            list_archives(client, BUCKET, PREFIX)
        assert e.value.__cause__ is failure


class TestParsed:
    def test_what_parsers_wrote_of_a_job(self, client: Client, make_key: MakeKey) -> None:
        output = client.create_bucket("etl-mlab-oti")
        put(output, f"{BUCKET}/{PREFIX}a.tgz.jsonl", "{}\n{}\n", rows="2")
        put(output, f"{BUCKET}/{PREFIX}b.tgz.jsonl", "{}\n", rows="1", writeError="sink: closed")
        put(output, f"{BUCKET}/{PREFIX}c.tgz.jsonl", "{}\n", rows="many")
        put(output, f"other/{PREFIX}d.tgz.jsonl")
        before = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1)
        a, b, c = list_parsed(client, "etl-mlab-oti", make_key())
        assert (a.name, a.size, a.rows) == (f"{BUCKET}/{PREFIX}a.tgz.jsonl", 6, 2)
        assert before < a.updated <= dt.datetime.now(dt.UTC)
        assert (a.write_error, b.write_error) == ("", "sink: closed")
        assert c.rows is None

    def test_no_bucket_is_an_error(self, client: Client, make_key: MakeKey) -> None:
        with pytest.raises(ArchiveError, match=f"gs://nowhere/{BUCKET}/{PREFIX} could not be"):
            list_parsed(client, "nowhere", make_key())
