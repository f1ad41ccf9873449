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
    """Uploads the archives of the given dates, of every source of the configuration.

    Args:
        folder: Laid out as the bucket: ``<experiment>/<datatype>/YYYY/MM/DD/<name>``.
        storage_url: The local Cloud Storage.
        config: Names the buckets; they are made where missing, as is the parsers' own.
        dates: Those to bring in.

    Returns:
        How many.
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
