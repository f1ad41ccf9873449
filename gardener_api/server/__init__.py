"""The sidecar process: jobs API, health, metrics, reports to Dagster."""
