"""Read and merge table schemas in BigQuery's own JSON: the files in `warehouse/schemas`.

Pure, except that it reads the package's files. Column names are case-insensitive, as in BigQuery.
The files describe the JSON that M-Lab's parsers write, following the Go types in m-lab/etl,
ndt-server, tcp-info, uuid-annotator and traceroute-caller.
"""

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, cast

Field = dict[str, Any]
"""One column: https://cloud.google.com/bigquery/docs/reference/rest/v2/tables#TableFieldSchema."""

_RECORD_TYPES = ("RECORD", "STRUCT")
COMMON = ("id", "date", "parser")
"""The first columns of every table."""


def schema_of(datatype: str) -> list[Field]:
    """Return the schema of a datatype; for one without a schema file, only the `COMMON` columns.

    The load operation detects the other columns of such a datatype from its data.
    """
    file = files("gardener_dagster.warehouse").joinpath("schemas", f"{datatype}.json")
    if file.is_file():
        return cast("list[Field]", json.loads(file.read_text(encoding="utf-8")))
    return [field for field in schema_of("pcap") if field["name"] in COMMON]


def is_known(datatype: str) -> bool:
    """Return whether the datatype has a schema file."""
    return files("gardener_dagster.warehouse").joinpath("schemas", f"{datatype}.json").is_file()


def merge(have: Sequence[Field], want: Sequence[Field]) -> tuple[list[Field], tuple[str, ...]]:
    """Add to the schema `have` the columns and fields that only `want` has.

    Fields that both have keep their definition in `have`, even if the types differ. Added fields
    are never REQUIRED, because existing rows lack them.

    Returns:
        The merged schema, and the added fields, as `path TYPE`.
    """
    return _merge(have, want, "")


def _merge(
    have: Sequence[Field], want: Sequence[Field], prefix: str
) -> tuple[list[Field], tuple[str, ...]]:
    merged = {field["name"].casefold(): dict(field) for field in have}
    added: list[str] = []
    for field in want:
        path = prefix + field["name"]
        mine = merged.get(field["name"].casefold())
        if mine is None:
            merged[field["name"].casefold()] = _relaxed(field)
            added.append(
                f"{path} {field['type']}{' REPEATED' if field.get('mode') == 'REPEATED' else ''}"
            )
        elif mine["type"] in _RECORD_TYPES and field["type"] in _RECORD_TYPES:
            mine["fields"], inner = _merge(
                mine.get("fields", ()), field.get("fields", ()), f"{path}."
            )
            added.extend(inner)
    return list(merged.values()), tuple(added)


def _relaxed(field: Field) -> Field:
    relaxed = {
        key: value for key, value in field.items() if not (key == "mode" and value == "REQUIRED")
    }
    if "fields" in relaxed:
        relaxed["fields"] = [_relaxed(inner) for inner in relaxed["fields"]]
    return relaxed


def has_field(schema: Sequence[Field], path: str) -> bool:
    """Return whether the schema has a field with this path; case-insensitive."""
    head, _, rest = path.casefold().partition(".")
    for field in schema:
        if field["name"].casefold() == head:
            return not rest or has_field(field.get("fields", ()), rest)
    return False


def joined_schema(annotations: Sequence[Field], raw: Sequence[Field]) -> list[Field]:
    """Return a joined table's columns: id, date, parser, the annotation's, the datatype's."""
    own = {field["name"].casefold(): field for field in raw}
    first = [own[name] for name in COMMON if name in own]
    return [*first, *(f for f in [*annotations, *raw] if f["name"].casefold() not in COMMON)]
