"""The one reader of the environment: the variables that the gardener's processes are started with.

Values are read when they are asked for, so a test may set a variable first. Options of the command
line that a variable can give are read by click (``envvar=``).
"""

import os


def config_path() -> str:
    """The configuration file; ``gardener.yml`` in the working directory by default."""
    return os.environ.get("GARDENER_CONFIG", "gardener.yml")


def store_url(url: str | None = None) -> str:
    """The SQLAlchemy URL of the job store.

    Args:
        url: An option's value, which goes before the environment. Without both it is SQLite under
            DAGSTER_HOME.
    """
    from gardener_api.store.engine import default_store_url  # SQLAlchemy; not for `--help`

    return (
        url
        or os.environ.get("GARDENER_DATABASE_URL")
        or default_store_url(os.environ.get("DAGSTER_HOME", "."))
    )


def may_migrate() -> bool:
    """Whether this process may make the job store, or migrate an older one.

    Raises:
        ValueError: ``GARDENER_MIGRATE`` is neither ``at-start`` nor ``never``.
    """
    value = os.environ.get("GARDENER_MIGRATE") or "at-start"
    if value not in ("at-start", "never"):
        raise ValueError(f"GARDENER_MIGRATE: {value!r}: expected one of at-start, never")
    return value == "at-start"


def project() -> str:
    """The Google Cloud project of the tables.

    Raises:
        ValueError: It is not set.
    """
    return _required("GARDENER_PROJECT", "the Google Cloud project of the tables")


def console_project() -> str | None:
    """The project whose tables Google's console shows; ``None`` for an emulator's."""
    return None if uses_bigquery_emulator() else os.environ.get("GARDENER_PROJECT") or None


def parsed_bucket() -> str:
    """The bucket that the parsers write to.

    Raises:
        ValueError: It is not set.
    """
    return _required("GARDENER_INPUT_LOCATION", "the bucket the parsers write to")


def api_token() -> str | None:
    """The bearer token of the jobs API; ``None``: it asks for none."""
    return os.environ.get("GARDENER_API_TOKEN") or None


def status_url() -> str | None:
    """The status page, as browsers reach it."""
    return os.environ.get("GARDENER_STATUS_URL") or None


def dagster_url() -> str:
    """Dagster's webserver, as browsers reach it; empty if unknown."""
    return os.environ.get("GARDENER_DAGSTER_URL", "")


def alert_webhook() -> str | None:
    """The URL that alerts are posted to."""
    return os.environ.get("GARDENER_ALERT_WEBHOOK") or None


def alert_format() -> str:
    """The format of the alerts; empty: it follows from the URL."""
    return os.environ.get("GARDENER_ALERT_FORMAT", "")


def uses_bigquery_emulator() -> bool:
    """Whether BigQuery is an emulator; Google's client reads the same variable."""
    return bool(os.environ.get("BIGQUERY_EMULATOR_HOST"))


def storage_emulator() -> str:
    """The URL of the emulator of Cloud Storage; empty without one."""
    return os.environ.get("STORAGE_EMULATOR_HOST", "")


def _required(variable: str, what: str) -> str:
    value = os.environ.get(variable, "")
    if not value:
        raise ValueError(f"{variable} is not set: expected {what}")
    return value
