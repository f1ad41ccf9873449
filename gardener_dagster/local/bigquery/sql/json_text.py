"""TO_JSON_STRING: SQL that writes JSON as BigQuery does, where DuckDB's ``to_json`` differs.

https://cloud.google.com/bigquery/docs/reference/standard-sql/json_functions#json_encodings. The
text of a value depends on its type. So DuckDB first binds the argument to find its type; the SQL
is generated from the type.
"""

from collections.abc import Callable

import duckdb
from duckdb.sqltypes import DuckDBPyType
from sqlglot import exp

from gardener_dagster.local.bigquery.catalog.schema import literal, quoted
from gardener_dagster.local.bigquery.errors import not_implemented
from gardener_dagster.local.bigquery.sql.translate import TO_JSON_STRING, duckdb_sql

_NOT_FOR_THE_TYPE = (
    "distinct", "where", "group", "having", "qualify", "windows", "order", "limit", "offset",
)  # fmt: skip
_EXACT = 2**53
_INTEGERS = ("tinyint", "smallint", "integer", "bigint", "hugeint")


def _larger_than(limit: int) -> str:
    """Return a regular expression that matches the whole numbers above a limit."""
    digits = str(limit)
    longer = f"[1-9][0-9]{{{len(digits)},}}"
    same = (
        f"{digits[:i]}[{int(digit) + 1}-9][0-9]{{{len(digits) - i - 1}}}"
        for i, digit in enumerate(digits)
        if digit != "9"
    )
    return "|".join([longer, *same])


_LARGE = rf"([:\[,])(-?(?:{_larger_than(_EXACT)}))\b"
_QUOTED = r'\1"\2"'

TypeOf = Callable[[str], DuckDBPyType]
"""Returns the type of the single column of a DuckDB SELECT."""


def write_out(tree: exp.Expr, type_of: TypeOf) -> None:
    """Replace each call of TO_JSON_STRING by SQL that formats its argument as JSON.

    Args:
        tree: a query bound to DuckDB's tables; modified in place.
        type_of: function that returns the type of an argument.

    Raises:
        BigQueryError: the argument cannot be bound, or its type is not supported.
    """
    calls = [node for node in tree.find_all(exp.Anonymous) if node.this == TO_JSON_STRING]
    for call in reversed(calls):  # nested calls first
        argument = call.expressions[0]
        try:
            kind = type_of(_select_of(argument))
        except duckdb.Error as error:
            raise not_implemented(f"TO_JSON_STRING({argument.sql()[:100]})") from error
        text = _text("j", kind, 0)
        # A list of one item makes DuckDB compute the argument once.
        call.replace(exp.Var(this=f"list_transform([{duckdb_sql(argument)}], lambda j: {text})[1]"))


def _select_of(argument: exp.Expr) -> str:
    """Return a SELECT of one expression, with the sources of its enclosing SELECT."""
    select = argument.find_ancestor(exp.Select)
    if select is None:
        return f"SELECT {duckdb_sql(argument)} AS argument"
    alone = select.copy()
    for key in _NOT_FOR_THE_TYPE:
        alone.set(key, None)
    alone.set("expressions", [exp.alias_(argument.copy(), "argument", quoted=True)])
    outer = select.parent
    while outer is not None:
        tables = outer.args.get("with_")
        if tables is not None:
            own = alone.args.get("with_")
            names = {one.alias for one in own.expressions} if own is not None else set()
            hidden = [one.copy() for one in tables.expressions if one.alias not in names]
            inner = own.expressions if own is not None else []
            alone.set("with_", exp.With(expressions=[*hidden, *inner]))
        outer = outer.parent
    return duckdb_sql(alone)


def _text(value: str, kind: DuckDBPyType, depth: int) -> str:
    """Return SQL that formats a value as JSON; its result is never NULL."""
    if kind.id in ("struct", "list") and _only_integers(kind):
        # DuckDB's to_json differs only in large integers, and binds faster than SQL per field.
        text = _cast(f"to_json({value})")
        quoting = f"{literal(_LARGE)}, {literal(_QUOTED)}, 'g'"
        return f"COALESCE(regexp_replace({text}, {quoting}), 'null')"
    if kind.id == "struct":
        parts: list[str] = []
        for name, child in _children(kind):
            inner = _text(f"{value}.{quoted(name)}", child, depth)
            key = literal(("," if parts else "{") + _json_string(name) + ":")
            parts.append(f"{key}, {inner}")
        return f"CASE WHEN {value} IS NULL THEN 'null' ELSE concat({', '.join(parts)}, '}}') END"
    if kind.id == "list":
        item = f"j{depth}"
        text = _text(item, _children(kind)[0][1], depth + 1)
        texts = f"list_transform({value}, lambda {item}: {text})"
        return f"COALESCE('[' || array_to_string({texts}, ',') || ']', 'null')"
    if kind.id not in _WRITERS:
        raise not_implemented(f"TO_JSON_STRING of {kind}")
    return f"COALESCE({_WRITERS[kind.id](value)}, 'null')"


def _children(kind: DuckDBPyType) -> list[tuple[str, DuckDBPyType]]:
    """Return the fields of a STRUCT, or the item type of a LIST."""
    return [(name, child) for name, child in kind.children if isinstance(child, DuckDBPyType)]


def _only_integers(kind: DuckDBPyType) -> bool:
    if kind.id in ("struct", "list"):
        return all(_only_integers(child) for _, child in _children(kind))
    return kind.id in _INTEGERS


def _cast(value: str) -> str:
    return f"CAST({value} AS VARCHAR)"


def _whole(value: str) -> str:
    exact = f"{value} BETWEEN -{_EXACT} AND {_EXACT}"
    return f"CASE WHEN {exact} THEN {_cast(value)} ELSE {_quotes(_cast(value))} END"


def _float(value: str) -> str:
    """Write 15 significant digits if they parse to the same number, else 17."""
    short, long = f"printf('%.15g', {value})", f"printf('%.17g', {value})"
    return (
        f"CASE WHEN isnan({value}) THEN '\"NaN\"' WHEN isinf({value}) THEN"
        f" CASE WHEN {value} > 0 THEN '\"Infinity\"' ELSE '\"-Infinity\"' END"
        f" WHEN CAST({short} AS DOUBLE) = {value} THEN {short} ELSE {long} END"
    )


def _timestamp(value: str) -> str:
    """Write fractional seconds with zero, three or six digits."""
    text = f"strftime({value}, '%Y-%m-%dT%H:%M:%S.%f')"
    return _quotes(f"regexp_replace({text}, '\\.?(000)?000$', '') || 'Z'")


def _quotes(text: str) -> str:
    return f"'\"' || {text} || '\"'"


def _json_string(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


_WRITERS: dict[str, Callable[[str], str]] = {
    "null": lambda _: "NULL",
    "boolean": _cast,
    **dict.fromkeys(_INTEGERS, _whole),
    **dict.fromkeys(("float", "double"), _float),
    "varchar": lambda value: _cast(f"to_json({value})"),
    "date": lambda value: _quotes(_cast(value)),
    "timestamp with time zone": _timestamp,
}
"""Functions that return SQL to format a value, by DuckDB's type id."""
