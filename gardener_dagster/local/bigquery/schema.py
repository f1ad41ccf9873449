"""Schemas: BigQuery's JSON, DuckDB's types, and from one to the other. Pure.

https://cloud.google.com/bigquery/docs/reference/rest/v2/tables#TableFieldSchema
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gardener_dagster.local.bigquery.errors import invalid

NULLABLE, REQUIRED, REPEATED = "NULLABLE", "REQUIRED", "REPEATED"

_DUCKDB = {
    "STRING": "VARCHAR",
    "BYTES": "BLOB",
    "INTEGER": "BIGINT",
    "FLOAT": "DOUBLE",
    "BOOLEAN": "BOOLEAN",
    "TIMESTAMP": "TIMESTAMPTZ",
    "DATE": "DATE",
    "TIME": "TIME",
    "DATETIME": "TIMESTAMP",
    "NUMERIC": "DECIMAL(38, 9)",
    "BIGNUMERIC": "DECIMAL(38, 18)",  # BigQuery has 76 digits; DuckDB's decimals end at 38
    "JSON": "JSON",
    "GEOGRAPHY": "VARCHAR",
    "INTERVAL": "INTERVAL",
}
_SYNONYMS = {
    "INT64": "INTEGER",
    "INT": "INTEGER",
    "SMALLINT": "INTEGER",
    "BIGINT": "INTEGER",
    "TINYINT": "INTEGER",
    "BYTEINT": "INTEGER",
    "FLOAT64": "FLOAT",
    "BOOL": "BOOLEAN",
    "STRUCT": "RECORD",
    "DECIMAL": "NUMERIC",
    "BIGDECIMAL": "BIGNUMERIC",
}
STANDARD = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "RECORD": "STRUCT"}
"""GoogleSQL's names where they differ from the REST API's."""

# DuckDB's type ids, in lower case, of query results.
_RESULTS = {
    "varchar": "STRING",
    "uuid": "STRING",
    "enum": "STRING",
    "blob": "BYTES",
    "boolean": "BOOLEAN",
    "float": "FLOAT",
    "double": "FLOAT",
    "date": "DATE",
    "time": "TIME",
    "timestamp with time zone": "TIMESTAMP",
    "timestamp": "DATETIME",
    "timestamp_s": "DATETIME",
    "timestamp_ms": "DATETIME",
    "timestamp_ns": "DATETIME",
    "decimal": "NUMERIC",
    "json": "JSON",
    "interval": "INTERVAL",
    "null": "INTEGER",  # BigQuery gives a bare NULL INT64
} | dict.fromkeys(
    [f"{u}{size}int" for u in ("", "u") for size in ("tiny", "small", "big", "huge")]
    + ["integer", "uinteger", "bignum"],
    "INTEGER",
)


@dataclass(frozen=True, kw_only=True)
class Field:
    """A column, or a field of a record.

    Attributes:
        type: the REST API's name, like ``INTEGER`` or ``RECORD``.
        mode: ``NULLABLE``, ``REQUIRED`` or ``REPEATED``.
        fields: of a record.
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
        """The field of one item of a repeated field."""
        return replace(self, mode=NULLABLE)

    @property
    def duckdb_type(self) -> str:
        """In DuckDB's SQL."""
        if self.type == "RECORD":
            inner = ", ".join(f"{quoted(f.name)} {f.duckdb_type}" for f in self.fields)
            one = f"STRUCT({inner})"
        else:
            one = _DUCKDB[self.type]
        return f"{one}[]" if self.repeated else one

    @property
    def standard_type(self) -> str:
        """In GoogleSQL."""
        one = STANDARD.get(self.type, self.type)
        if self.type == "RECORD":
            one = f"STRUCT<{', '.join(f'{f.name} {f.standard_type}' for f in self.fields)}>"
        return f"ARRAY<{one}>" if self.repeated else one

    def to_json(self) -> dict[str, Any]:
        """As the REST API has it."""
        body: dict[str, Any] = {"name": self.name, "type": self.type, "mode": self.mode}
        if self.fields:
            body["fields"] = to_json(self.fields)
        if self.description:
            body["description"] = self.description
        return body


Fields = tuple[Field, ...]


def from_json(fields: Iterable[Mapping[str, Any]], *, path: str = "") -> Fields:
    """Fields of the REST API's JSON.

    Raises:
        BigQueryError: a name, type or mode is none of BigQuery's, or two names are the same.
    """
    made: list[Field] = []
    for one in fields:
        name = str(one.get("name", ""))
        where = f"{path}{name}"
        kind = str(one.get("type", "")).upper()
        kind = _SYNONYMS.get(kind, kind)
        mode = str(one.get("mode") or NULLABLE).upper()
        if not name or len(name) > 300 or any(c in name for c in '.!"$()*,/;?@[\\]^`{}~'):
            raise invalid(f'Invalid field name "{where}". Fields must contain only letters,'
                          " numbers, and underscores, start with a letter or underscore, and be"
                          " at most 300 characters long.")  # fmt: skip
        if kind != "RECORD" and kind not in _DUCKDB:
            raise invalid(f"Invalid value for type: {one.get('type')} is not a valid value")
        if mode not in (NULLABLE, REQUIRED, REPEATED):
            raise invalid(f"Invalid value for mode: {one.get('mode')} is not a valid value")
        if find(made, name):
            raise invalid(f"Duplicate column names in the schema: {where}")
        inner = from_json(one.get("fields") or (), path=f"{where}.") if kind == "RECORD" else ()
        if kind == "RECORD" and not inner:
            raise invalid(f"Field {where} is type RECORD but has no schema")
        text = str(one.get("description") or "")
        made.append(Field(name=name, type=kind, mode=mode, fields=inner, description=text))
    return tuple(made)


def to_json(fields: Iterable[Field]) -> list[dict[str, Any]]:
    """Fields in the REST API's JSON."""
    return [field.to_json() for field in fields]


def find(fields: Iterable[Field], name: str) -> Field | None:
    """The field of that name; as in BigQuery, case does not matter."""
    low = name.lower()
    return next((field for field in fields if field.name.lower() == low), None)


def leaves(fields: Iterable[Field], path: tuple[Field, ...] = ()) -> Iterator[tuple[Field, ...]]:
    """The way to each field that is no record."""
    for field in fields:
        way = (*path, field)
        if field.type == "RECORD":
            yield from leaves(field.fields, way)
        else:
            yield way


def dotted(path: Iterable[Field]) -> str:
    """A path as BigQuery writes it, like ``parser.Time``."""
    return ".".join(field.name for field in path)


def merged(have: Fields, new: Fields, *, table: str, path: str = "") -> Fields:
    """The fields of ``have``, relaxed as ``new`` says, then those that only ``new`` has.

    Raises:
        BigQueryError: a type or a mode would change to another.
    """
    result = []
    for field in have:
        other = find(new, field.name)
        result.append(
            field
            if other is None
            else _merged_field(field, other, table=table, where=f"{path}{field.name}")
        )
    added = [field for field in new if find(have, field.name) is None]
    for field in added:
        if field.mode == REQUIRED:
            raise _mismatch(table, f"Cannot add required fields to an existing schema."
                            f" (field: {path}{field.name})")  # fmt: skip
    return tuple(result + added)


def _merged_field(have: Field, new: Field, *, table: str, where: str) -> Field:
    if have.type != new.type:
        raise _mismatch(table, f"Field {where} has changed type from {have.type} to {new.type}")
    relaxed = (have.mode, new.mode) == (REQUIRED, NULLABLE)
    if have.mode != new.mode and not relaxed and (have.mode, new.mode) != (NULLABLE, REQUIRED):
        raise _mismatch(table, f"Field {where} has changed mode from {have.mode} to {new.mode}")
    return replace(
        have,
        mode=NULLABLE if relaxed else have.mode,
        description=new.description or have.description,
        fields=merged(have.fields, new.fields, table=table, path=f"{where}."),
    )


def _mismatch(table: str, what: str) -> Exception:
    return invalid(f"Provided Schema does not match Table {table}. {what}")


def only_in(new: Fields, have: Fields, *, path: str = "") -> list[str]:
    """Paths of the fields that ``new`` has and ``have`` has not."""
    paths = []
    for field in new:
        other = find(have, field.name)
        if other is None:
            paths.append(f"{path}{field.name}")
        else:
            paths += only_in(field.fields, other.fields, path=f"{path}{field.name}.")
    return paths


def relaxed_in(new: Fields, have: Fields, *, path: str = "") -> list[str]:
    """Paths of the fields that ``have`` requires and ``new`` does not."""
    paths = []
    for field in have:
        other = find(new, field.name)
        if other is None:
            continue
        if (field.mode, other.mode) == (REQUIRED, NULLABLE):
            paths.append(f"{path}{field.name}")
        paths += relaxed_in(other.fields, field.fields, path=f"{path}{field.name}.")
    return paths


def result_field(name: str, kind: Any) -> Field:  # noqa: ANN401 - DuckDB's type objects are untyped
    """The field of a query result's column.

    Args:
        name: the column's.
        kind: a ``duckdb.sqltypes.DuckDBPyType``.

    Raises:
        BigQueryError: BigQuery has no such type.
    """
    if kind.id in ("list", "array"):
        item = result_field(name, dict(kind.children)["child"])
        if item.repeated:
            raise invalid(f"Cannot have an array of arrays: {name}")
        return replace(item, mode=REPEATED)
    if kind.id == "struct":
        inner = tuple(result_field(*child) for child in kind.children)
        return Field(name=name, type="RECORD", fields=inner)
    if str(kind).lower() == "json":
        return Field(name=name, type="JSON")
    if kind.id not in _RESULTS:
        raise invalid(f"Column {name} has the type {kind}, which BigQuery has not")
    return Field(name=name, type=_RESULTS[kind.id])


def quoted(name: str) -> str:
    """An identifier in DuckDB's SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A string in DuckDB's SQL."""
    return "'" + text.replace("'", "''") + "'"


def column_list(fields: Sequence[Field], *, defaults: bool = False) -> str:
    """The columns of a ``CREATE TABLE``; DuckDB, unlike BigQuery, needs at least one.

    Args:
        fields: of the table.
        defaults: what is not given is an empty array where it is repeated; else NULL.
    """
    columns = []
    for field in fields:
        default = " DEFAULT []" if defaults and field.repeated else ""
        columns.append(f"{quoted(field.name)} {field.duckdb_type}{default}")
    return ", ".join(columns) or '"_none" BOOLEAN'
