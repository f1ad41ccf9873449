"""What the buckets hold of one date: its archives, and the objects that parsers wrote of them."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from gardener_api.archive import ParsedObject, list_archives, list_parsed
from gardener_api.config import Source
from gardener_api.jobs.job import Job, JobKey
from gardener_api.store.store import JobStore
from gardener_dagster.planning.due_tables import job_key
from gardener_dagster.resources import GCSResource
from gardener_dagster.warehouse.objects import LoadSource, choose_objects
from gardener_dagster.warehouse.objects import ParsedObject as LoadedObject

_LONG_AGO = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, kw_only=True)
class DateListing:
    """The archives and the parsed objects of one date, as listed at one time.

    Attributes:
        key: Key of the date's parse job.
        parsed_bucket: Bucket that the parsers write to.
        archives: Names of the archives.
        objects: Objects that parsers wrote, in any parse of the date.
    """

    key: JobKey
    parsed_bucket: str
    archives: Sequence[str]
    objects: Sequence[ParsedObject]

    @classmethod
    def of(cls, gcs: GCSResource, key: JobKey, pattern: str) -> "DateListing":
        """List both buckets.

        Args:
            gcs: Cloud Storage.
            key: Key of the date's parse job.
            pattern: Pattern of the archive names, applied as the parsers do.

        Raises:
            ArchiveError: A bucket could not be listed.
        """
        return cls(
            key=key,
            parsed_bucket=gcs.parsed_bucket,
            archives=list_archives(gcs.client, key.bucket, key.prefix, pattern).names,
            objects=list_parsed(gcs.client, gcs.parsed_bucket, key),
        )

    def objects_of_parse(self, job: Job | None) -> LoadSource:
        """Choose the objects that the last parse wrote; name the objects left out.

        Args:
            job: The parse job. If the store has none (the date was parsed before this gardener
                existed), objects of any age are chosen.
        """
        return choose_objects(
            (
                LoadedObject(name=o.name, written=o.updated, size=o.size, write_error=o.write_error)
                for o in self.objects
            ),
            output_bucket=self.parsed_bucket,
            source_bucket=self.key.bucket,
            prefix=self.key.prefix,
            archives=self.archives,
            parse_started=job.leased if job and job.leased else _LONG_AGO,
        )


def found_no_files(job: Job | None) -> bool:
    """Whether the job is parsed and found no archives; False without a job."""
    return job is not None and job.parsed is not None and job.archives == 0


def is_known_empty(store: JobStore, source: Source, date: dt.date) -> bool:
    """Whether a date of a source is known to be empty: it has no archives, or raw has no rows."""
    made = store.tables.partition(source.raw_table, date)
    return found_no_files(store.latest(job_key(source, date))) or (
        made is not None and made.rows == 0
    )
