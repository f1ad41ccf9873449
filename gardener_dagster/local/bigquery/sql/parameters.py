"""Replace a query's named parameters by literals of GoogleSQL. No I/O.

https://cloud.google.com/bigquery/docs/parameterized-queries
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlglot import exp

from gardener_dagster.local.bigquery.errors import invalid_query, not_implemented
from gardener_dagster.local.bigquery.loading.rows import RowError, scalar_text

_TYPES = {
    "STRING": "STRING",
    "INT64": "INTEGER",
    "FLOAT64": "FLOAT",
    "BOOL": "BOOLEAN",
    "DATE": "DATE",
    "TIMESTAMP": "TIMESTAMP",
}
"""Column type by parameter type."""


def fill_in(tree: exp.Expr, parameters: Sequence[Mapping[str, Any]]) -> None:
    """Replace each ``@name`` by the value of its parameter.

    Args:
        tree: the query; modified in place.
        parameters: ``QueryParameter`` resources.

    Raises:
        BigQueryError: a parameter is missing, its value is invalid, or it is not supported.
    """
    named = {str(one.get("name") or "").lower(): one for one in parameters}
    if tree.find(exp.Placeholder):
        raise not_implemented("positional query parameters")
    for node in list(tree.find_all(exp.Parameter)):
        if isinstance(node.this, exp.Parameter):
            raise not_implemented(f"the system variable {node.sql('bigquery')}")
        if node.name.lower() not in named:
            raise invalid_query(f"Query parameter '{node.name}' not found")
        node.replace(_literal(named[node.name.lower()]))


def _literal(parameter: Mapping[str, Any]) -> exp.Expr:
    name = str(parameter["parameterType"]["type"]).upper()
    if name not in _TYPES:
        raise not_implemented(f"a query parameter of type {name}")
    kind = exp.DataType.build(name, "bigquery")
    text = (parameter.get("parameterValue") or {}).get("value")
    if text is None:
        return exp.cast(exp.null(), kind)
    try:
        scalar_text(text, _TYPES[name], "")
    except RowError as error:
        raise invalid_query(f"Invalid value for type: {name} is not a valid value") from error
    literal = exp.Literal.string(str(text))
    return literal if name == "STRING" else exp.cast(literal, kind)
