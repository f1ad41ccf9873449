"""Read and merge table schemas in BigQuery's own JSON: the files in `warehouse/schemas`.

Pure but for reading the package's files. A column's name does not care about case, in BigQuery as
here. The files say what M-Lab's parsers write; their facts come from m-lab/etl, ndt-server,
tcp-info, uuid-annotator and traceroute-caller, whose Go types are the parsers' JSON.
"""

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, cast

Field = dict[str, Any]
"""One column: https://cloud.google.com/bigquery/docs/reference/rest/v2/tables#TableFieldSchema."""

_RECORD_TYPES = ("RECORD", "STRUCT")
COMMON = ("id", "date", "parser")
"""The columns that every table begins with."""


def schema_of(datatype: str) -> list[Field]:
    """The schema of a datatype; for one without a file just the columns that all have.

    What an unknown datatype has beyond those is learnt from its data when it is loaded.
    """
    file = files("gardener_dagster.warehouse").joinpath("schemas", f"{datatype}.json")
    if file.is_file():
        return cast("list[Field]", json.loads(file.read_text(encoding="utf-8")))
    return [field for field in schema_of("pcap") if field["name"] in COMMON]


def is_known(datatype: str) -> bool:
    """Whether the datatype has a schema file."""
    return files("gardener_dagster.warehouse").joinpath("schemas", f"{datatype}.json").is_file()


def merge(have: Sequence[Field], want: Sequence[Field]) -> tuple[list[Field], tuple[str, ...]]:
    """Adds to a schema the columns and fields that another one has beyond it.

    What both have stays as it is in the first, also where the types differ. What is added is never
    REQUIRED: the rows that are there do not have it.

    Returns:
        The schema, and what was added, as `path TYPE`.
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
    """Whether the schema has a field of this path, whatever its case."""
    head, _, rest = path.casefold().partition(".")
    for field in schema:
        if field["name"].casefold() == head:
            return not rest or has_field(field.get("fields", ()), rest)
    return False


def joined_schema(annotations: Sequence[Field], raw: Sequence[Field]) -> list[Field]:
    """A joined table's columns: id, date, parser, then the annotation's, then the datatype's."""
    own = {field["name"].casefold(): field for field in raw}
    first = [own[name] for name in COMMON if name in own]
    return [*first, *(f for f in [*annotations, *raw] if f["name"].casefold() not in COMMON)]
