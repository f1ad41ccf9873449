"""The code location: puts the parts together, and is the only reader of the environment.

``build_defs`` takes everything as arguments, so that tests build Definitions of their own.
"""

import functools
import os
from pathlib import Path

import dagster as dg

from gardener_api.config import GardenerConfig, load_config
from gardener_api.links import Links
from gardener_dagster.alerts import build_alerts
from gardener_dagster.assets import build_assets
from gardener_dagster.catalog import Catalog
from gardener_dagster.checks import build_checks
from gardener_dagster.freshness import build_freshness
from gardener_dagster.history import historical_pass_sensor
from gardener_dagster.late import late_archives_sensor
from gardener_dagster.leftovers import build_leftovers
from gardener_dagster.partitions import daily_partitions
from gardener_dagster.resources import GCSResource, JobStoreResource, WarehouseResource
from gardener_dagster.schedules import build_schedules
from gardener_dagster.sensors import build_sensors
from gardener_dagster.webhook import Webhook


def build_defs(
    config: GardenerConfig,
    *,
    job_store: JobStoreResource,
    warehouse: WarehouseResource,
    gcs: GCSResource,
    webhook: Webhook | None = None,
    links: Links | None = None,
) -> dg.Definitions:
    """All definitions of a configuration, on the given resources.

    Args:
        config: The gardener's.
        job_store: The job store.
        warehouse: BigQuery.
        gcs: Cloud Storage.
        webhook: That is told of failures.
        links: What the catalog links to, where that is known.
    """
    partitions = daily_partitions(config.start_date)
    catalog = Catalog(
        project=warehouse.project, parsed_bucket=gcs.parsed_bucket, links=links or Links()
    )
    definitions = dg.Definitions(
        assets=build_assets(config, partitions, catalog),
        asset_checks=build_checks(config, partitions),
        sensors=[
            *build_sensors(config),
            late_archives_sensor(config),
            historical_pass_sensor(config),
            *build_alerts(config, webhook),
        ],
        schedules=[*build_schedules(config), build_leftovers(config)],
        resources={"job_store": job_store, "warehouse": warehouse, "gcs": gcs},
        # A date's steps follow each other: a process each would only pay the imports again.
        executor=dg.in_process_executor,
    )
    return dg.Definitions.merge(definitions, build_freshness(config))


def defs_of_environment() -> dg.Definitions:
    """The definitions of the configuration and the services that the environment names.

    Raises:
        ConfigError: The configuration file has faults.
        ValueError: A variable that is needed is not set, or one has a bad value.
    """
    config = load_config(os.environ.get("GARDENER_CONFIG", "gardener.yml"))
    project = _required("GARDENER_PROJECT", "the Google Cloud project of the tables")
    home = os.environ.get("DAGSTER_HOME", str(Path.cwd()))
    return build_defs(
        config,
        job_store=JobStoreResource(
            url=os.environ.get("GARDENER_DATABASE_URL") or f"sqlite:///{home}/gardener.db",
            lease_seconds=config.tracker.timeout.total_seconds(),
            max_attempts=config.tracker.max_attempts,
        ),
        warehouse=WarehouseResource(
            project=project,
            location=config.bigquery.location,
            priority=config.bigquery.priority,
            maximum_bytes_billed=config.bigquery.maximum_bytes_billed,
            schema_update=config.bigquery.schema_update,
            tmp_expiration_seconds=config.bigquery.tmp_expiration.total_seconds(),
        ),
        gcs=GCSResource(
            project=project,
            parsed_bucket=_required("GARDENER_INPUT_LOCATION", "the bucket the parsers write to"),
        ),
        webhook=_webhook(),
        # The tables of a local stack are not in Google's console.
        links=Links(
            project=None if os.environ.get("BIGQUERY_EMULATOR_HOST") else project,
            status_url=os.environ.get("GARDENER_STATUS_URL") or None,
        ),
    )


defs = dg.definitions(functools.cache(defs_of_environment))
"""What Dagster loads: made once a process, so that a run has those it is forked with."""


def _webhook() -> Webhook | None:
    url = os.environ.get("GARDENER_ALERT_WEBHOOK")
    if not url:
        return None
    return Webhook.of(
        url,
        format=os.environ.get("GARDENER_ALERT_FORMAT", ""),
        dagster_url=os.environ.get("GARDENER_DAGSTER_URL", ""),
    )


def _required(variable: str, what: str) -> str:
    value = os.environ.get(variable, "")
    if not value:
        raise ValueError(f"{variable} is not set: expected {what}")
    return value
