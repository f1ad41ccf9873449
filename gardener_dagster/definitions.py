"""The code location: builds all definitions from the configuration and the resources.

``build_defs`` takes all inputs as arguments, so that tests can build their own definitions.
"""

import dagster as dg

from gardener_api.config import GardenerConfig, load_config
from gardener_api.links import Links
from gardener_dagster import settings
from gardener_dagster.assets.catalog import Catalog
from gardener_dagster.assets.partitions import daily_partitions
from gardener_dagster.assets.tables import build_assets
from gardener_dagster.automation.alerts import build_alerts
from gardener_dagster.automation.expired_partitions import build_expire_tmp
from gardener_dagster.automation.freshness import build_freshness
from gardener_dagster.automation.historical_pass import historical_pass_sensor
from gardener_dagster.automation.late_archives import late_archives_sensor
from gardener_dagster.automation.schedules import build_schedules
from gardener_dagster.automation.sensors import build_sensors
from gardener_dagster.automation.webhook import Webhook
from gardener_dagster.resources import GCSResource, JobStoreResource, WarehouseResource


def build_defs(
    config: GardenerConfig,
    *,
    job_store: JobStoreResource,
    warehouse: WarehouseResource,
    gcs: GCSResource,
    webhook: Webhook | None = None,
    links: Links | None = None,
) -> dg.Definitions:
    """Build all definitions of a configuration, with the given resources.

    Args:
        config: The gardener's configuration.
        job_store: The job store.
        warehouse: BigQuery.
        gcs: Cloud Storage.
        webhook: Receives the alerts, if there is one.
        links: Link targets of the catalog, as far as known.
    """
    partitions = daily_partitions(config.start_date)
    catalog = Catalog(
        project=warehouse.project, parsed_bucket=gcs.parsed_bucket, links=links or Links()
    )
    definitions = dg.Definitions(
        assets=build_assets(config, partitions, catalog),
        sensors=[
            *build_sensors(config),
            late_archives_sensor(config),
            historical_pass_sensor(config),
            *build_alerts(config, webhook),
        ],
        schedules=[*build_schedules(config), build_expire_tmp(config)],
        resources={"job_store": job_store, "warehouse": warehouse, "gcs": gcs},
        # A run's steps follow one another: a process per step would only repeat the imports.
        executor=dg.in_process_executor,
    )
    return dg.Definitions.merge(definitions, build_freshness(config))


@dg.definitions
def defs() -> dg.Definitions:
    """Build the definitions from the configuration file and services named in the environment.

    Raises:
        ConfigError: The configuration file has errors.
        ValueError: A required environment variable is not set, or a value is invalid.
    """
    config = load_config(settings.config_path())
    project = settings.project()
    return build_defs(
        config,
        job_store=JobStoreResource(
            url=settings.store_url(),
            lease_seconds=config.tracker.timeout.total_seconds(),
            max_attempts=config.tracker.max_attempts,
            may_migrate=settings.may_migrate(),
        ),
        warehouse=WarehouseResource(
            project=project,
            location=config.bigquery.location or None,
            priority=config.bigquery.priority,
            maximum_bytes_billed=config.bigquery.maximum_bytes_billed,
            schema_update=config.bigquery.schema_update,
            tmp_expiration_seconds=config.bigquery.tmp_expiration.total_seconds(),
        ),
        gcs=GCSResource(project=project, parsed_bucket=settings.parsed_bucket()),
        webhook=_webhook(),
        links=Links(project=settings.console_project(), status_url=settings.status_url()),
    )


def _webhook() -> Webhook | None:
    url = settings.alert_webhook()
    if not url:
        return None
    return Webhook.of(url, format=settings.alert_format(), dagster_url=settings.dagster_url())
