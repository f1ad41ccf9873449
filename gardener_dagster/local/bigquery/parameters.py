"""Query parameters as literals of GoogleSQL. Pure.

https://cloud.google.com/bigquery/docs/parameterized-queries
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlglot import exp

from gardener_dagster.local.bigquery.errors import invalid_query, not_implemented

Parameter = Mapping[str, Any]

_SCALARS = frozenset(
    {"STRING", "INT64", "FLOAT64", "BOOL", "DATE", "TIMESTAMP", "DATETIME", "TIME", "BYTES"}
    | {"NUMERIC", "BIGNUMERIC", "JSON"}
)


def fill_in(tree: exp.Expr, parameters: Sequence[Parameter]) -> None:
    """Puts the parameters where a query names them (``@name``), or where it has ``?``.

    Raises:
        BigQueryError: one is missing, or its type is none.
    """
    named = {str(p["name"]).lower(): p for p in parameters if p.get("name")}
    for node in list(tree.find_all(exp.Parameter)):
        name = node.name
        if isinstance(node.this, exp.Parameter):
            raise not_implemented(f"System variable @@{name}")
        if name.lower() not in named:
            raise invalid_query(f"Query parameter '{name}' not found")
        node.replace(literal_of(named[name.lower()]))
    positional = [p for p in parameters if not p.get("name")]
    places = list(tree.find_all(exp.Placeholder))
    if len(places) > len(positional):
        raise invalid_query(
            f"Query has {len(places)} positional parameters but {len(positional)} were given"
        )
    for place, parameter in zip(places, positional, strict=False):
        place.replace(literal_of(parameter))


def literal_of(parameter: Parameter) -> exp.Expr:
    """The value of a ``QueryParameter``.

    Raises:
        BigQueryError: its type is none.
    """
    return _value(parameter["parameterType"], parameter.get("parameterValue") or {})


def _value(kind: Mapping[str, Any], value: Mapping[str, Any]) -> exp.Expr:
    name = str(kind["type"]).upper()
    if name == "ARRAY":
        items = value.get("arrayValues") or ()
        array = exp.Array(expressions=[_value(kind["arrayType"], item) for item in items])
        return exp.cast(array, exp.DataType.build(f"ARRAY<{_name(kind['arrayType'])}>", "bigquery"))
    if name == "STRUCT":
        values = value.get("structValues") or {}
        return exp.Struct(
            expressions=[
                exp.PropertyEQ(
                    this=exp.to_identifier(field["name"]),
                    expression=_value(field["type"], values.get(field["name"]) or {}),
                )
                for field in kind["structTypes"]
            ]
        )
    if name not in _SCALARS:
        raise not_implemented(f"A query parameter of type {name}")
    text = value.get("value")
    return _scalar(name, None if text is None else str(text))


def _scalar(name: str, text: str | None) -> exp.Expr:
    kind = exp.DataType.build(name, "bigquery")
    if text is None:
        return exp.cast(exp.null(), kind)
    if name == "STRING":
        return exp.Literal.string(text)
    if name == "BYTES":
        return exp.Anonymous(this="from_base64", expressions=[exp.Literal.string(text)])
    return exp.cast(exp.Literal.string(text), kind)


def _name(kind: Mapping[str, Any]) -> str:
    if str(kind["type"]).upper() == "STRUCT":
        fields = ", ".join(f"{f['name']} {_name(f['type'])}" for f in kind["structTypes"])
        return f"STRUCT<{fields}>"
    return str(kind["type"]).upper()
