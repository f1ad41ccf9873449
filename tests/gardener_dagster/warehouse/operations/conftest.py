"""A laboratory: scratch datasets and buckets, rows, and looks into tables."""

import datetime as dt
import json
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from google.cloud import bigquery
from google.cloud.storage import Client as StorageClient

from gardener_dagster.warehouse.engine import RetryPolicy, Settings
from gardener_dagster.warehouse.names import JobContext, Partition, SourceTables
from gardener_dagster.warehouse.objects import LoadSource, ParsedObject, choose_objects
from gardener_dagster.warehouse.operations.warehouse import Warehouse

if TYPE_CHECKING:
    from tests.gardener_dagster.warehouse.conftest import Clients, Faults

DATE = dt.date(2024, 3, 1)
QUICK = RetryPolicy(initial=0.01, maximum=0.05, timeout=20.0, request=30.0)
Row = dict[str, Any]


@dataclass
class Lab:
    """Scratch datasets and buckets, and clients to look into them.

    Attributes:
        client: for looking, without faults.
        faulty: for the warehouse.
    """

    client: bigquery.Client
    faulty: bigquery.Client
    storage: StorageClient
    faults: "Faults"
    token: str

    impatient = Settings(
        priority="INTERACTIVE",
        retry=RetryPolicy(initial=0.01, maximum=0.02, timeout=0.3, request=30.0),
    )
    """Retries that end soon."""

    @property
    def output(self) -> str:
        return f"gardener-test-{self.token}"

    def tables(self, datatype: str = "ndt7", *, annotations: str = "annotation2") -> SourceTables:
        return SourceTables(
            experiment="ndt",
            datatype=datatype,
            tmp=f"tmp_{self.token}",
            raw=f"raw_{self.token}",
            joined=f"joined_{self.token}",
            annotations=annotations,
        )

    def warehouse(self, **options: Any) -> Warehouse:
        settings = options.pop("settings", Settings(priority="INTERACTIVE", retry=QUICK))
        options.setdefault("sleep", lambda seconds: time.sleep(min(seconds, 0.02)))
        return Warehouse(self.faulty, settings, **options)

    def context(self, date: dt.date = DATE, *, attempt: int = 1) -> JobContext:
        return JobContext(run_id=uuid.uuid4().hex, date=date, attempt=attempt)

    def write(
        self, archives: Mapping[str, Sequence[Row]], *, datatype: str = "ndt7", date: dt.date = DATE
    ) -> None:
        """What the parser writes for archives of these short names."""
        bucket = self.storage.bucket(self.output)
        for name, rows in archives.items():
            blob = bucket.blob(self.object_name(name, datatype=datatype, date=date))
            blob.upload_from_string("".join(json.dumps(row) + "\n" for row in rows))

    def source(
        self,
        archives: Mapping[str, Sequence[Row]],
        *,
        datatype: str = "ndt7",
        date: dt.date = DATE,
        stale: Collection[str] = (),
    ) -> LoadSource:
        """Writes the archives' objects and chooses among all there are, as after a parse.

        Args:
            archives: rows by the archive's short name.
            datatype: of the archives.
            date: of the archives.
            stale: archives that are there too, but whose objects are of an earlier parse.
        """
        self.write(archives, datatype=datatype, date=date)
        prefix = f"ndt/{datatype}/{date:%Y/%m/%d}/"
        old = {self.object_name(name, datatype=datatype, date=date) for name in stale}
        now = dt.datetime.now(dt.UTC)
        objects = [
            ParsedObject(
                name=blob.name,
                written=now - dt.timedelta(hours=blob.name in old),
                size=blob.size or 0,
            )
            for blob in self.storage.list_blobs(self.output, prefix=f"archives/{prefix}")
        ]
        return choose_objects(
            objects,
            output_bucket=self.output,
            source_bucket="archives",
            prefix=prefix,
            archives=[f"{prefix}{name}.tgz" for name in (*archives, *stale)],
            parse_started=now,
        )

    def wipe(self, *, datatype: str = "ndt7", date: dt.date = DATE) -> None:
        """Removes a date's objects."""
        prefix = f"archives/ndt/{datatype}/{date:%Y/%m/%d}/"
        for blob in list(self.storage.list_blobs(self.output, prefix=prefix)):
            blob.delete()

    @staticmethod
    def object_name(name: str, *, datatype: str = "ndt7", date: dt.date = DATE) -> str:
        return f"archives/ndt/{datatype}/{date:%Y/%m/%d}/{name}.tgz.jsonl"

    def url(self, name: str, *, datatype: str = "ndt7", date: dt.date = DATE) -> str:
        return f"gs://{self.output}/{self.object_name(name, datatype=datatype, date=date)}"

    def rows(self, partition: Partition, columns: str = "*") -> list[Row]:
        """The partition's rows as they are in the table; none where the table is missing."""
        try:
            self.client.get_table(partition.table_id)
        except Exception as error:
            if getattr(error, "code", 0) != 404:
                raise
            return []
        table = f"`{partition.dataset}.{partition.table}`"
        job = self.client.query(
            f"SELECT {columns} FROM {table} WHERE date = @date",  # noqa: S608 - names of this file
            job_config=bigquery.QueryJobConfig(
                query_parameters=[bigquery.ScalarQueryParameter("date", "DATE", partition.date)]
            ),
        )
        return [dict(row.items()) for row in job.result()]

    def ids(self, partition: Partition) -> list[str | None]:
        """The partition's ids, sorted; None first."""
        found = [row["id"] for row in self.rows(partition, "id")]
        return sorted(found, key=lambda value: (value is not None, value))

    def load(
        self,
        rows: Sequence[Row],
        *,
        datatype: str = "ndt7",
        date: dt.date = DATE,
        archive: str = "a",
    ) -> Partition:
        """Brings rows into a tmp partition in one go."""
        tables = self.tables(datatype)
        source = self.source({archive: rows}, datatype=datatype, date=date)
        self.warehouse().load(tables, source, self.context(date))
        return tables.tmp_partition(date)

    def publish(
        self, rows: Sequence[Row], *, datatype: str = "ndt7", date: dt.date = DATE
    ) -> Partition:
        """Brings rows into a raw partition in one go."""
        self.load(rows, datatype=datatype, date=date)
        tables, ctx = self.tables(datatype), self.context(date)
        self.warehouse().copy(tables, ctx, parse_had_no_files=False)
        self.warehouse().delete(tables, ctx)
        return tables.raw_partition(date)


def ndt7_row(
    id: str | None,
    *,
    date: dt.date = DATE,
    second: int = 0,
    archive: str = "a",
    filename: str = "f.json.gz",
    throughput: float = 1.0,
    **more: Any,
) -> Row:
    """A row of ndt7 as its parser writes it: some keys begin with a capital."""
    return {
        "ID": id,
        "A": {"UUID": id, "MeanThroughputMbps": throughput},
        "Parser": parser(date, second, archive, filename),
        "Date": date.isoformat(),
        "Raw": {"Version": "v0.1", "Download": {"UUID": id, "ClientMeasurements": None}},
        **more,
    }


def tcpinfo_row(
    id: str, *, archive: str, filename: str, second: int = 0, date: dt.date = DATE
) -> Row:
    """A row of tcpinfo: lower-case keys, and a connection may have several."""
    return {
        "id": id,
        "parser": parser(date, second, archive, filename),
        "date": date.isoformat(),
        "raw": {"Metadata": {"UUID": id, "Sequence": 0}, "Snapshots": []},
    }


def annotation_row(
    id: str | None,
    site: str,
    *,
    date: dt.date = DATE,
    second: int = 0,
    archive: str = "n",
    filename: str = "f.json",
) -> Row:
    """A row of annotation2."""
    return {
        "id": id,
        "server": {"Site": site, "Machine": "mlab1", "Geo": {"City": "Lga"}},
        "client": {"Network": {"ASNumber": 64512, "Systems": [{"ASNs": [64512]}]}},
        "parser": parser(date, second, archive, filename),
        "date": date.isoformat(),
    }


def parser(date: dt.date, second: int, archive: str, filename: str) -> Row:
    moment = dt.datetime(2024, 3, 2, 12, tzinfo=dt.UTC) + dt.timedelta(seconds=second)
    return {
        "Version": "v2",
        "Time": moment.isoformat().replace("+00:00", "Z"),
        "ArchiveURL": f"gs://archives/ndt/ndt7/{date:%Y/%m/%d}/{archive}.tgz",
        "Filename": filename,
        "Priority": 0,
        "GitCommit": "abc",
        "ArchiveSize": 10,
        "FileSize": 5,
    }


@pytest.fixture(scope="session")
def rows() -> Any:
    """Makers of rows, for tests that cannot import from here."""

    class Makers:
        ndt7 = staticmethod(ndt7_row)
        tcpinfo = staticmethod(tcpinfo_row)
        annotation = staticmethod(annotation_row)

    return Makers


@pytest.fixture
def labs(clients: "Clients", faults: "Faults") -> Iterator[Callable[[], Lab]]:
    """Makes laboratories, and removes all that is in them."""
    looking, faulty, store = clients
    made: list[Lab] = []

    def make() -> Lab:
        token = uuid.uuid4().hex[:10]
        lab = Lab(client=looking, faulty=faulty, storage=store, faults=faults, token=token)
        store.create_bucket(lab.output)
        made.append(lab)
        return lab

    yield make
    for lab in made:
        tables = lab.tables()
        for dataset in (tables.tmp, tables.raw, tables.joined):
            looking.delete_dataset(dataset, delete_contents=True, not_found_ok=True)
        for blob in list(store.list_blobs(lab.output)):
            blob.delete()
        store.bucket(lab.output).delete()


@pytest.fixture
def lab(labs: Callable[[], Lab]) -> Lab:
    return labs()
