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
    """One listing of both buckets.

    Attributes:
        key: Of the parse job of the date.
        parsed_bucket: Where parsers write to.
        archives: Names of the archives.
        objects: What parsers wrote, in any parse of the date.
    """

    key: JobKey
    parsed_bucket: str
    archives: Sequence[str]
    objects: Sequence[ParsedObject]

    @classmethod
    def of(cls, gcs: GCSResource, key: JobKey, pattern: str) -> "DateListing":
        """List the buckets.

        Args:
            gcs: Cloud Storage.
            key: Of the parse job of the date.
            pattern: Of the names of the archives, as the parsers apply it.

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
        """Choose the objects that the last parse wrote; name what else lies there.

        Args:
            job: The parse. A date that the store does not know (parsed before this gardener was)
                is taken as it is.
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
    """Whether a source's last parse of a date found no archive files."""
    return job is not None and job.parsed is not None and job.archives == 0


def is_known_empty(store: JobStore, source: Source, date: dt.date) -> bool:
    """Whether a date of a source has no rows, and rightly so: it was made, of no rows."""
    made = store.tables.partition(source.raw_table, date)
    return found_no_files(store.latest(job_key(source, date))) or (
        made is not None and made.rows == 0
    )
