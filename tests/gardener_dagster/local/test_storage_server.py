"""Cloud Storage on this machine, as Python's client and as Go's clients use it."""

import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from gardener_dagster.local.storage_server import StorageHandler, StorageServer

CHUNK = 256 * 1024  # the unit of Cloud Storage's chunks
SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 5 * CHUNK + 17]


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    with StorageServer(("127.0.0.1", 0), folder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def opened(url: str) -> Iterator[storage.Client]:
    with storage.Client(
        project="p", credentials=AnonymousCredentials(), client_options={"api_endpoint": url}
    ) as client:
        yield client


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with served(tmp_path) as address:
        yield address


@pytest.fixture
def bucket(url: str) -> Iterator[storage.Bucket]:
    with opened(url) as client:
        yield client.create_bucket("etl-mlab")


def begin_as_go_does(url: str, name: str) -> str:
    """Begin a resumable upload; its URL."""
    answer = requests.post(
        f"{url}/upload/storage/v1/b/etl-mlab/o",
        params={"alt": "json", "name": name, "uploadType": "resumable"},
        json={"bucket": "etl-mlab", "name": name, "metadata": {"rows": "7"}},
        headers={"X-Upload-Content-Type": "text/plain; charset=utf-8"},
        timeout=10,
    )
    assert answer.status_code == 200
    return answer.headers["Location"]


def send_as_go_does(upload: str, chunk: bytes, content_range: str) -> requests.Response:
    """What ``gensupport`` of google.golang.org/api sends for one chunk."""
    return requests.post(
        upload,
        data=chunk,
        headers={
            "Content-Range": content_range,
            "Content-Type": "text/plain; charset=utf-8",
            "X-GUploader-No-308": "yes",
        },
        timeout=10,
        allow_redirects=False,
    )


def upload_as_go_does(url: str, name: str, content: bytes) -> requests.Response:
    """Upload in chunks; the last answer.

    The size is not known before the end. Where the content ends with a chunk, an empty one follows.
    """
    upload = begin_as_go_does(url, name)
    start = 0
    while len(content) - start >= CHUNK:
        end = start + CHUNK
        answer = send_as_go_does(upload, content[start:end], f"bytes {start}-{end - 1}/*")
        assert answer.status_code == 200, "a plain 308 ends the upload of a Go client"
        assert answer.headers["X-Http-Status-Code-Override"] == "308"
        start = end
    rest = content[start:]
    total = len(content)
    last = f"bytes {start}-{total - 1}/{total}" if rest else f"bytes */{total}"
    return send_as_go_does(upload, rest, last)


@pytest.mark.parametrize("size", SIZES)
def test_d34_a_go_clients_chunks_arrive(url: str, bucket: storage.Bucket, size: int) -> None:
    content = noise(size)
    last = upload_as_go_does(url, "a.jsonl", content)
    assert last.status_code == 200
    assert "X-Http-Status-Code-Override" not in last.headers, "it would go on"
    assert last.json()["size"] == str(size)
    blob = bucket.get_blob("a.jsonl")
    assert blob is not None
    assert (blob.download_as_bytes(), blob.metadata) == (content, {"rows": "7"})


def test_d34_a_go_client_that_knows_the_size_sends_it_with_each_chunk(
    url: str, bucket: storage.Bucket
) -> None:
    content = noise(2 * CHUNK)
    upload = begin_as_go_does(url, "a.jsonl")
    first = send_as_go_does(upload, content[:CHUNK], f"bytes 0-{CHUNK - 1}/{2 * CHUNK}")
    assert first.headers["X-Http-Status-Code-Override"] == "308"
    last = send_as_go_does(upload, content[CHUNK:], f"bytes {CHUNK}-{2 * CHUNK - 1}/{2 * CHUNK}")
    assert (last.status_code, "X-Http-Status-Code-Override" in last.headers) == (200, False)
    assert bucket.blob("a.jsonl").download_as_bytes() == content


@pytest.mark.parametrize("size", SIZES)
def test_d34_pythons_client_uploads_as_before(bucket: storage.Bucket, size: int) -> None:
    content = noise(size)
    blob = bucket.blob("a.jsonl", chunk_size=CHUNK)
    with blob.open("wb") as file:  # in chunks, without a size
        file.write(content)
    assert bucket.blob("a.jsonl").download_as_bytes() == content


def test_other_clients_get_the_308(url: str, bucket: storage.Bucket) -> None:
    upload = begin_as_go_does(url, "a.jsonl")
    answer = requests.put(
        upload,
        data=noise(CHUNK),
        headers={"Content-Range": f"bytes 0-{CHUNK - 1}/*"},
        timeout=10,
        allow_redirects=False,
    )
    assert answer.status_code == 308
    assert answer.headers["Range"] == f"bytes=0-{CHUNK - 1}"


def test_a_client_that_stops_amid_its_request_does_not_hold_up_the_others(
    url: str, bucket: storage.Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StorageHandler, "timeout", 0.5)
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port)) as stopped:
        stopped.sendall(
            b"POST /upload/storage/v1/b/etl-mlab/o?uploadType=media&name=x HTTP/1.1\r\n"
        )
        stopped.sendall(b"Content-Length: 9\r\n\r\n{")
        bucket.blob("a").upload_from_string("a", timeout=10)
        assert [blob.name for blob in bucket.list_blobs(timeout=10)] == ["a"]


@pytest.mark.parametrize("left", [b"", b'{"buckets": {"etl-', None])
def test_a_process_that_was_killed_while_it_wrote_loses_no_object(
    tmp_path: Path, left: bytes | None
) -> None:
    with served(tmp_path) as address, opened(address) as client:
        bucket = client.create_bucket("etl-mlab")
        bucket.blob("a").upload_from_string("a")
        bucket.blob("b").upload_from_string("b")
    [listed] = tmp_path.rglob(".meta")
    if left is None:
        listed.unlink()
    else:
        listed.write_bytes(left)
    with served(tmp_path) as address, opened(address) as client:
        # As if it had been killed before the second was answered.
        assert [blob.name for blob in client.list_blobs("etl-mlab")] == ["a"]


def test_killed_again_and_again_it_starts_with_what_it_had_answered(tmp_path: Path) -> None:
    answered = 0
    for round_ in range(3):
        port_file = tmp_path / f"port-{round_}"
        program = (
            "import sys; from pathlib import Path;"
            "from gardener_dagster.local.storage_server import StorageServer\n"
            "with StorageServer(('127.0.0.1', 0), Path(sys.argv[1])) as server:\n"
            "    Path(sys.argv[2]).write_text(str(server.server_address[1]) + '\\n')\n"
            "    server.serve_forever()\n"
        )
        command = [sys.executable, "-c", program, str(tmp_path / "data"), str(port_file)]
        with subprocess.Popen(command) as process:
            while not port_file.exists() or not port_file.read_text(encoding="ascii"):
                assert process.poll() is None
                time.sleep(0.02)
            address = f"http://127.0.0.1:{int(port_file.read_text(encoding='ascii'))}"
            with opened(address) as client:
                bucket = client.bucket("etl-mlab") if round_ else client.create_bucket("etl-mlab")
                names = {blob.name for blob in client.list_blobs("etl-mlab")}
                assert {f"{n:04}" for n in range(answered)} <= names
                killer = threading.Timer(0.5, process.kill)
                killer.start()
                try:
                    while True:
                        bucket.blob(f"{answered:04}").upload_from_string("x", retry=None)
                        answered += 1
                except requests.RequestException:
                    killer.join()
    assert answered > 0
