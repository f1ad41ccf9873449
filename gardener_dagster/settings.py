"""The one reader of the environment: the variables that the gardener's processes are started with.

Each function reads its variable when it is called, so a test can set it first. Variables that set
options of the command line are read by click (``envvar=``).
"""

import os


def config_path() -> str:
    """Return the configuration file; by default ``gardener.yml`` in the working directory."""
    return os.environ.get("GARDENER_CONFIG", "gardener.yml")


def store_url(url: str | None = None) -> str:
    """Return the SQLAlchemy URL of the job store.

    Args:
        url: Value of the command line's option, which overrides the environment. Without either,
            the store is SQLite under DAGSTER_HOME.
    """
    from gardener_api.store.engine import default_store_url  # SQLAlchemy would slow `--help`

    return (
        url
        or os.environ.get("GARDENER_DATABASE_URL")
        or default_store_url(os.environ.get("DAGSTER_HOME", "."))
    )


def may_migrate() -> bool:
    """Whether this process may create the job store, or migrate an older one.

    Raises:
        ValueError: ``GARDENER_MIGRATE`` is neither ``at-start`` nor ``never``.
    """
    value = os.environ.get("GARDENER_MIGRATE") or "at-start"
    if value not in ("at-start", "never"):
        raise ValueError(f"GARDENER_MIGRATE: {value!r}: expected one of at-start, never")
    return value == "at-start"


def project() -> str:
    """Return the Google Cloud project of the tables.

    Raises:
        ValueError: The variable is not set.
    """
    return _required("GARDENER_PROJECT", "the Google Cloud project of the tables")


def console_project() -> str | None:
    """Return the project for console links; ``None`` if it is not set or BigQuery is emulated."""
    return None if uses_bigquery_emulator() else os.environ.get("GARDENER_PROJECT") or None


def parsed_bucket() -> str:
    """Return the bucket that the parsers write to.

    Raises:
        ValueError: The variable is not set.
    """
    return _required("GARDENER_INPUT_LOCATION", "the bucket the parsers write to")


def api_token() -> str | None:
    """Return the bearer token that the jobs API requires; ``None``: it requires none."""
    return os.environ.get("GARDENER_API_TOKEN") or None


def status_url() -> str | None:
    """Return the status page's URL for browsers; ``None`` if unknown."""
    return os.environ.get("GARDENER_STATUS_URL") or None


def dagster_url() -> str:
    """Return the URL of Dagster's webserver for browsers; empty if unknown."""
    return os.environ.get("GARDENER_DAGSTER_URL", "")


def alert_webhook() -> str | None:
    """Return the URL that alerts are posted to; ``None``: there is no webhook."""
    return os.environ.get("GARDENER_ALERT_WEBHOOK") or None


def alert_format() -> str:
    """Return the format of the alerts; empty: it is derived from the URL."""
    return os.environ.get("GARDENER_ALERT_FORMAT", "")


def uses_bigquery_emulator() -> bool:
    """Whether BigQuery is an emulator; Google's client reads the same variable."""
    return bool(os.environ.get("BIGQUERY_EMULATOR_HOST"))


def storage_emulator() -> str:
    """Return the URL of the Cloud Storage emulator; empty without one."""
    return os.environ.get("STORAGE_EMULATOR_HOST", "")


def _required(variable: str, what: str) -> str:
    value = os.environ.get(variable, "")
    if not value:
        raise ValueError(f"{variable} is not set: expected {what}")
    return value
