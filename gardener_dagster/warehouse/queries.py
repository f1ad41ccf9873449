"""The queries in `warehouse/sql`, with their identifiers put in.

Values are passed as `@parameters`, never in the text of a query. Identifiers in the text are
checked in `names`.
"""

from collections.abc import Sequence
from importlib.resources import files

from gardener_dagster.warehouse.names import column_path


def query(name: str, **identifiers: str) -> str:
    """Return `sql/<name>.sql` with `{identifiers}` replaced by these, which must be quoted."""
    text = (
        files("gardener_dagster.warehouse")
        .joinpath("sql", f"{name}.sql")
        .read_text(encoding="utf-8")
    )
    return text.format(**identifiers).strip()


def key_parts(key: Sequence[str]) -> dict[str, str]:
    """The identifiers `key`, `key_columns`, `key_names`, `id_name`, `keyless` of the dedup queries.

    A row is keyless if a part of its key is NULL or empty: the Go parsers write a missing id as "".

    Raises:
        ValueError: the key is empty or a part of it is not a column.
    """
    if not key:
        raise ValueError("the dedup key has no columns")
    columns = [f"t.{column_path(path)}" for path in key]
    return {
        "key": ", ".join(columns),
        "key_columns": ", ".join(f"{column} AS key_{i}" for i, column in enumerate(columns)),
        "key_names": ", ".join(f"key_{i}" for i in range(len(columns))),
        "id_name": f"key_{key.index('id') if 'id' in key else 0}",
        "keyless": "("
        + " OR ".join(f"IFNULL(CAST({c} AS STRING), '') = ''" for c in columns)
        + ")",
    }
