"""A local BigQuery and a Cloud Storage emulator in this process, with the real clients."""

import datetime as dt
import itertools
import json
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from bigquery_server import running_server
from gcp_storage_emulator.server import create_server
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from google.cloud.storage import Client as StorageClient

PROJECT = "test-project"
DAY = "2024-03-01"
FIELDS: list[dict[str, Any]] = [
    {"name": "id", "type": "STRING"},
    {"name": "date", "type": "DATE"},
    {"name": "n", "type": "INTEGER"},
    {
        "name": "parser",
        "type": "RECORD",
        "fields": [
            {"name": "Version", "type": "STRING"},
            {"name": "Time", "type": "TIMESTAMP"},
        ],
    },
    {
        "name": "items",
        "type": "RECORD",
        "mode": "REPEATED",
        "fields": [{"name": "p", "type": "INTEGER"}, {"name": "q", "type": "STRING"}],
    },
    {"name": "tags", "type": "STRING", "mode": "REPEATED"},
]

Row = dict[str, Any]


def client_for(url: str) -> bigquery.Client:
    return bigquery.Client(
        project=PROJECT,
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": url},
    )


@dataclass
class Lab:
    """One test's dataset and bucket, and shortcuts to use them."""

    client: bigquery.Client
    url: str
    dataset: str
    bucket: Any
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def table(
        self,
        name: str = "t",
        fields: Sequence[Row] = FIELDS,
        *,
        day: str = "date",
        required: bool = True,
        **properties: Any,
    ) -> None:
        """Make a table, partitioned by the column `day` if it is not empty."""
        table = bigquery.Table(
            f"{PROJECT}.{self.dataset}.{name}",
            schema=[bigquery.SchemaField.from_api_repr(one) for one in fields],
        )
        if day:
            table.time_partitioning = bigquery.TimePartitioning(field=day)
            table.require_partition_filter = required
        for key, value in properties.items():
            setattr(table, key, value)
        self.client.create_table(table)

    def ref(self, name: str) -> str:
        return f"{PROJECT}.{self.dataset}.{name}"

    def put(self, name: str, content: str | Sequence[Row]) -> str:
        """Write an object with a text or with rows as JSON lines; return its URI."""
        if not isinstance(content, str):
            content = "".join(json.dumps(row) + "\n" for row in content)
        self.bucket.blob(name).upload_from_string(content)
        return f"gs://{self.bucket.name}/{name}"

    def load(self, uris: str | Sequence[str], destination: str, **options: Any) -> bigquery.LoadJob:
        """Run a load job to its successful end."""
        job = self.begin_load(uris, destination, **options)
        job.result()
        return job

    def begin_load(
        self, uris: str | Sequence[str], destination: str, **options: Any
    ) -> bigquery.LoadJob:
        options = {"write_disposition": "WRITE_TRUNCATE"} | options
        config = bigquery.LoadJobConfig(source_format="NEWLINE_DELIMITED_JSON", **options)
        return self.client.load_table_from_uri(uris, self.ref(destination), job_config=config)

    def fill(self, destination: str, rows: Sequence[Row], **options: Any) -> bigquery.LoadJob:
        """Replace the rows of a table or partition."""
        return self.load(self.put(f"{next(self.numbers)}.jsonl", rows), destination, **options)

    def query(self, sql: str, *parameters: Any, **options: Any) -> list[dict[str, Any]]:
        """Return the rows of a query; tables of the dataset need no qualification."""
        return [dict(row.items()) for row in self.job(sql, *parameters, **options).result()]

    def job(self, sql: str, *parameters: Any, **options: Any) -> bigquery.QueryJob:
        config = bigquery.QueryJobConfig(
            query_parameters=list(parameters),
            default_dataset=f"{PROJECT}.{self.dataset}",
            **options,
        )
        return self.client.query(sql, job_config=config)

    def rows(self, name: str, where: str = "date IS NOT NULL") -> list[dict[str, Any]]:
        return self.query(f"SELECT * FROM {name} WHERE {where} ORDER BY id")  # noqa: S608

    def fault(self, **fault: Any) -> None:
        """Inject a fault."""
        requests.post(f"{self.url}/faults", json=[fault], timeout=10).raise_for_status()


@pytest.fixture(scope="session")
def storage_url() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    server = create_server("127.0.0.1", port, in_memory=True)
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture(scope="session")
def storage(storage_url: str) -> Iterator[Any]:
    with StorageClient(
        project=PROJECT,
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": storage_url},
    ) as client:
        yield client


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, storage_url: str) -> Iterator[str]:
    with running_server(tmp_path_factory.mktemp("bigquery"), storage_url=storage_url) as url:
        yield url


@pytest.fixture(scope="session")
def client(server: str) -> Iterator[bigquery.Client]:
    with client_for(server) as made:
        yield made


@pytest.fixture(scope="session")
def numbers() -> Iterator[int]:
    return itertools.count(1)


@pytest.fixture
def lab(
    client: bigquery.Client, server: str, storage: Any, numbers: Iterator[int]
) -> Iterator[Lab]:
    number = next(numbers)
    made = Lab(client, server, f"d{number}", storage.create_bucket(f"bucket-{number}"))
    client.create_dataset(made.dataset)
    yield made
    requests.delete(f"{server}/faults", timeout=10)
    client.delete_dataset(made.dataset, delete_contents=True)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = dt.datetime(2024, 3, 2, 12, tzinfo=dt.UTC)

    def __call__(self) -> dt.datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def clocked(
    tmp_path: Path, storage_url: str, storage: Any, clock: Clock, numbers: Iterator[int]
) -> Iterator[Lab]:
    """A lab on a server of its own, with the test's clock."""
    with (
        running_server(tmp_path / "data", now=clock, storage_url=storage_url) as url,
        client_for(url) as client,
    ):
        bucket = storage.create_bucket(f"bucket-{next(numbers)}")
        client.create_dataset("d")
        yield Lab(client, url, "d", bucket)


@pytest.fixture(scope="session")
def connect() -> Callable[[str], bigquery.Client]:
    return client_for


@pytest.fixture
def row() -> Callable[..., Row]:
    """Make a row as a parser writes it."""

    def make(id: str | None, date: str = DAY, **more: Any) -> Row:
        time = f"{date}T01:02:03.123456789Z"
        return {"ID": id, "Date": date, "Parser": {"Version": "v1", "Time": time}} | more

    return make
