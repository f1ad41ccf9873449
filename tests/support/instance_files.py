"""Dagster's ``dagster.yaml`` of production: what the chart makes of the values, and for a test."""

import re
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
Values = dict[str, Any]


def production_yaml(*, port: int, kubeconfig: Path, database: str = "postgres") -> Values:
    """``deploy/dagster.yaml`` with addresses of this machine.

    Args:
        port: Of PostgreSQL, on 127.0.0.1.
        kubeconfig: Names the Kubernetes API.
        database: Dagster's.
    """
    instance: Values = yaml.safe_load((DEPLOY / "dagster.yaml").read_text(encoding="utf-8"))
    for storage in ("schedule_storage", "run_storage", "event_log_storage"):
        address = {"hostname": "127.0.0.1", "port": port, "db_name": database}
        instance[storage]["config"]["postgres_db"] |= address
    launcher = instance["run_launcher"]["config"]
    launcher |= {"load_incluster_config": False, "kubeconfig_file": str(kubeconfig)}
    return instance


def instance_yaml(values: Values) -> Values:
    """What the templates of Dagster's chart 1.13 make of these values (``configmap-instance``)."""
    launcher = values["runLauncher"]["config"]["k8sRunLauncher"]
    daemon, postgresql = values["dagsterDaemon"], values["postgresql"]
    logs = values["computeLogManager"]["config"]["gcsComputeLogManager"]
    monitoring, retries = daemon["runMonitoring"], daemon["runRetries"]
    retention = values["retention"]
    database = {
        "postgres_db": {
            "username": postgresql["postgresqlUsername"],
            "password": {"env": "DAGSTER_PG_PASSWORD"},
            "hostname": postgresql["postgresqlHost"],
            "db_name": postgresql["postgresqlDatabase"],
            "port": postgresql["service"]["port"],
            "params": postgresql["postgresqlParams"],
            "scheme": postgresql["postgresqlScheme"],
        }
    }

    def storage(module: str, name: str) -> Values:
        return {"module": f"dagster_postgres.{module}", "class": name, "config": database}

    return {
        "scheduler": {"module": "dagster.core.scheduler", "class": "DagsterDaemonScheduler"},
        "schedule_storage": storage("schedule_storage", "PostgresScheduleStorage"),
        "run_storage": storage("run_storage", "PostgresRunStorage"),
        "event_log_storage": storage("event_log", "PostgresEventLogStorage"),
        "run_launcher": {
            "module": "dagster_k8s",
            "class": values["runLauncher"]["type"],
            "config": {
                "load_incluster_config": launcher["loadInclusterConfig"],
                "job_namespace": launcher["jobNamespace"],
                "image_pull_policy": launcher["imagePullPolicy"],
                "service_account_name": values["global"]["serviceAccountName"],
                "dagster_home": values["global"]["dagsterHome"],
                "instance_config_map": "dagster-instance",  # of a release called dagster
                "postgres_password_secret": values["global"]["postgresqlSecretName"],
                "env_config_maps": [each["name"] for each in launcher["envConfigMaps"]],
                "env_secrets": [each["name"] for each in launcher["envSecrets"]],
                "volume_mounts": launcher["volumeMounts"],
                "volumes": launcher["volumes"],
                "run_k8s_config": _snake(launcher["runK8sConfig"]),
            },
        },
        "run_coordinator": daemon["runCoordinator"]["config"]["customRunCoordinator"],
        "compute_logs": {
            "module": "dagster_gcp.gcs.compute_log_manager",
            "class": values["computeLogManager"]["type"],
            "config": _snake(logs),
        },
        "python_logs": {
            "python_log_level": values["pythonLogs"]["pythonLogLevel"],
            "managed_python_loggers": values["pythonLogs"]["managedPythonLoggers"],
        },
        "run_monitoring": _snake(monitoring),
        "run_retries": _snake(retries),
        "sensors": _snake(daemon["sensors"]),
        "retention": {
            name: {"purge_after_days": retention[name]["purgeAfterDays"]}
            for name in ("sensor", "schedule")
        },
        "telemetry": values["telemetry"],
        **values["additionalInstanceConfig"],
    }


def _snake(value: Any) -> Any:
    if isinstance(value, dict):
        return {re.sub(r"([A-Z])", r"_\1", k).lower(): _snake(v) for k, v in value.items()}
    return [_snake(each) for each in value] if isinstance(value, list) else value
