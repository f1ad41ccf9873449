"""Schemas: BigQuery's JSON, DuckDB's types, and conversions between them. No I/O.

https://cloud.google.com/bigquery/docs/reference/rest/v2/tables#TableFieldSchema. Supported
types: STRING, INTEGER, FLOAT, BOOLEAN, TIMESTAMP, DATE, RECORD. Modes: NULLABLE, REPEATED.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gardener_dagster.local.bigquery.errors import invalid, not_implemented

NULLABLE, REPEATED = "NULLABLE", "REPEATED"

_DUCKDB = {
    "STRING": "VARCHAR",
    "INTEGER": "BIGINT",
    "FLOAT": "DOUBLE",
    "BOOLEAN": "BOOLEAN",
    "TIMESTAMP": "TIMESTAMPTZ",
    "DATE": "DATE",
}
_SYNONYMS = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN", "STRUCT": "RECORD"}
_RESULT_TYPES = {
    "varchar": "STRING",
    "boolean": "BOOLEAN",
    "float": "FLOAT",
    "double": "FLOAT",
    "date": "DATE",
    "timestamp with time zone": "TIMESTAMP",
    "null": "INTEGER",  # BigQuery gives a bare NULL the type INT64
} | dict.fromkeys(["tinyint", "smallint", "integer", "bigint", "hugeint", "ubigint"], "INTEGER")
"""BigQuery's type of a result column, by DuckDB's type id."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """A column, or a field of a record.

    Attributes:
        type: the REST API's name, like ``INTEGER`` or ``RECORD``.
        mode: ``NULLABLE`` or ``REPEATED``.
        fields: fields of a record; empty for other types.
    """

    name: str
    type: str
    mode: str = NULLABLE
    fields: tuple["Field", ...] = ()
    description: str = ""

    @property
    def repeated(self) -> bool:
        """Whether a value is an array."""
        return self.mode == REPEATED

    @property
    def item(self) -> "Field":
        """The field of one array item: the same field with mode NULLABLE."""
        return replace(self, mode=NULLABLE)

    @property
    def duckdb_type(self) -> str:
        """The type in DuckDB's SQL."""
        if self.type == "RECORD":
            inner = ", ".join(f"{quoted(f.name)} {f.duckdb_type}" for f in self.fields)
            one = f"STRUCT({inner})"
        else:
            one = _DUCKDB[self.type]
        return f"{one}[]" if self.repeated else one

    def to_json(self) -> dict[str, Any]:
        """Return the REST API's JSON."""
        body: dict[str, Any] = {"name": self.name, "type": self.type, "mode": self.mode}
        if self.fields:
            body["fields"] = to_json(self.fields)
        if self.description:
            body["description"] = self.description
        return body


Fields = tuple[Field, ...]


def from_json(fields: Iterable[Mapping[str, Any]], *, path: str = "") -> Fields:
    """Parse the REST API's JSON.

    Raises:
        BigQueryError: a name, type or mode is invalid or not supported, or a name is duplicated.
    """
    made: list[Field] = []
    for one in fields:
        name = str(one.get("name", ""))
        where = f"{path}{name}"
        if not name or len(name) > 300 or any(c in name for c in '.!"$()*,/;?@[\\]^`{}~'):
            raise invalid(f'Invalid field name "{where}". Fields must contain only letters,'
                          " numbers, and underscores, start with a letter or underscore, and be"
                          " at most 300 characters long.")  # fmt: skip
        if find(made, name):
            raise invalid(f"Duplicate column names in the schema: {where}")
        kind = str(one.get("type", "")).upper()
        kind = _SYNONYMS.get(kind, kind)
        if kind != "RECORD" and kind not in _DUCKDB:
            raise not_implemented(f"the type {kind} of the field {where}")
        mode = str(one.get("mode") or NULLABLE).upper()
        if mode not in (NULLABLE, REPEATED):
            raise not_implemented(f"the mode {mode} of the field {where}")
        inner = from_json(one.get("fields") or (), path=f"{where}.") if kind == "RECORD" else ()
        if kind == "RECORD" and not inner:
            raise invalid(f"Field {where} is type RECORD but has no schema")
        text = str(one.get("description") or "")
        made.append(Field(name=name, type=kind, mode=mode, fields=inner, description=text))
    return tuple(made)


def to_json(fields: Iterable[Field]) -> list[dict[str, Any]]:
    """Return fields in the REST API's JSON."""
    return [field.to_json() for field in fields]


def find(fields: Iterable[Field], name: str) -> Field | None:
    """Find a field by its name, ignoring case as BigQuery does."""
    low = name.lower()
    return next((field for field in fields if field.name.lower() == low), None)


def flat_columns(
    fields: Iterable[Field], path: tuple[str, ...] = ()
) -> Iterator[tuple[str, Field]]:
    """Yield each field that is an array or not a record, after its path in DuckDB's SQL."""
    for field in fields:
        way = (*path, quoted(field.name))
        if field.type == "RECORD" and not field.repeated:
            yield from flat_columns(field.fields, way)
        else:
            yield ".".join(way), field


def merged(have: Fields, new: Fields, *, table: str, path: str = "") -> Fields:
    """Merge two schemas at every depth: add the fields that only ``new`` has to ``have``.

    Args:
        have: fields of a table.
        new: fields to merge; their descriptions override those of ``have``.
        table: name of the table, for the error.
        path: path of the record that contains the fields, for the error.

    Raises:
        BigQueryError: the type or mode of a field would change.
    """
    result = []
    for field in have:
        other = find(new, field.name)
        if other is None:
            result.append(field)
            continue
        where = f"{path}{field.name}"
        for what in ("type", "mode"):
            before, after = getattr(field, what), getattr(other, what)
            if before != after:
                raise invalid(
                    f"Provided Schema does not match Table {table}. Field {where} has changed"
                    f" {what} from {before} to {after}"
                )
        inner = merged(field.fields, other.fields, table=table, path=f"{where}.")
        text = other.description or field.description
        result.append(replace(field, fields=inner, description=text))
    added = [field for field in new if find(have, field.name) is None]
    return tuple(result + added)


def only_in(new: Fields, have: Fields, *, path: str = "") -> list[str]:
    """Return the paths of the fields that ``new`` has and ``have`` lacks."""
    paths = []
    for field in new:
        other = find(have, field.name)
        if other is None:
            paths.append(f"{path}{field.name}")
        else:
            paths += only_in(field.fields, other.fields, path=f"{path}{field.name}.")
    return paths


def result_field(name: str, kind: Any) -> Field:  # noqa: ANN401 - DuckDB's type objects are untyped
    """Convert the name and type of a DuckDB result column to a field.

    Args:
        name: the column's name.
        kind: the column's ``duckdb.sqltypes.DuckDBPyType``.

    Raises:
        BigQueryError: the type is not supported.
    """
    if kind.id == "list":
        item = result_field(name, dict(kind.children)["child"])
        if item.repeated:
            raise invalid(f"Cannot have an array of arrays: {name}")
        return replace(item, mode=REPEATED)
    if kind.id == "struct":
        inner = tuple(result_field(*child) for child in kind.children)
        return Field(name=name, type="RECORD", fields=inner)
    if kind.id not in _RESULT_TYPES or str(kind) == "JSON":  # JSON has VARCHAR's id
        raise not_implemented(f"the type of the result's column {name} (DuckDB's {kind})")
    return Field(name=name, type=_RESULT_TYPES[kind.id])


def quoted(name: str) -> str:
    """Quote an identifier for DuckDB's SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Quote a string for DuckDB's SQL."""
    return "'" + text.replace("'", "''") + "'"


def column_list(fields: Sequence[Field]) -> str:
    """Return the columns of a ``CREATE TABLE``; add a dummy if empty, as DuckDB requires one."""
    columns = [f"{quoted(field.name)} {field.duckdb_type}" for field in fields]
    return ", ".join(columns) or '"_none" BOOLEAN'
