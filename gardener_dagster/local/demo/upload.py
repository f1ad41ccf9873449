"""Brings a folder of archives into the local Cloud Storage, as the nodes' pushers would."""

import datetime as dt
from collections.abc import Collection
from pathlib import Path

from gardener_api.config import GardenerConfig
from gardener_dagster.local.clients import storage_client
from gardener_dagster.local.stack.parts import PARSED_BUCKET


def upload_archives(
    folder: Path, storage_url: str, config: GardenerConfig, dates: Collection[dt.date]
) -> int:
    """Upload the archives of the given dates, of every source of the configuration.

    Args:
        folder: Has the bucket's layout: ``<experiment>/<datatype>/YYYY/MM/DD/<name>``.
        storage_url: URL of the local Cloud Storage.
        config: Names the archive buckets; these and the parsers' bucket are created if missing.
        dates: Dates to upload.

    Returns:
        The number of uploaded archives.
    """
    uploaded = 0
    with storage_client(storage_url) as client:
        have = {bucket.name for bucket in client.list_buckets()}
        for name in {PARSED_BUCKET, *(s.bucket for s in config.sources)} - have:
            client.create_bucket(name)
        for source in config.sources:
            bucket = client.bucket(source.bucket)
            for date in sorted(dates):
                prefix = f"{source.experiment}/{source.datatype}/{date:%Y/%m/%d}"
                for path in sorted((folder / prefix).glob("*")):
                    bucket.blob(f"{prefix}/{path.name}").upload_from_filename(str(path))
                    uploaded += 1
    return uploaded
