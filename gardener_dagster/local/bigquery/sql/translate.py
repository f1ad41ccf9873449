"""Parse GoogleSQL, refuse what is not supported, and translate the rest to DuckDB's SQL. No I/O.

sqlglot does most of the translation. `_FUNCTIONS` lists the supported functions: they
give the same results in DuckDB as in BigQuery, some of them after a rewrite in `_CHANGES`.
"""

import datetime as dt
import re
from collections.abc import Callable

import sqlglot
from sqlglot import exp
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import ParseError, TokenError

from gardener_dagster.local.bigquery.errors import invalid_query, not_implemented

TO_JSON_STRING = "bq_to_json_string"
"""Placeholder for TO_JSON_STRING; `json_text` replaces it."""

_FUNCTIONS = (
    exp.And, exp.AnyValue, exp.ApproxQuantiles, exp.Array, exp.ArraySize, exp.Avg, exp.Case,
    exp.Cast, exp.Coalesce, exp.Concat, exp.Count, exp.CountIf, exp.CurrentDate,
    exp.CurrentTimestamp, exp.Date, exp.DateAdd, exp.DateDiff, exp.DateSub, exp.Exists,
    exp.GenerateSeries, exp.If, exp.JSONFormat, exp.Length, exp.Lower, exp.MD5, exp.MD5Digest,
    exp.Max, exp.Min, exp.Nullif, exp.Or, exp.RegexpExtract, exp.RegexpLike, exp.Round,
    exp.RowNumber, exp.SafeDivide, exp.StartsWith, exp.Struct, exp.Substring, exp.Sum, exp.TryCast,
    exp.TsOrDsToDate, exp.Unnest, exp.Upper,
)  # fmt: skip
_TYPES = frozenset(
    exp.DataType.Type[name]
    for name in ("TEXT", "BIGINT", "DOUBLE", "BOOLEAN", "DATE", "TIMESTAMPTZ", "ARRAY", "STRUCT")
)


def parse(sql: str) -> exp.Query:
    """Parse a query.

    Raises:
        BigQueryError: the syntax is invalid, or the statement or a part is not supported.
    """
    try:
        statements = [one for one in sqlglot.parse(sql, dialect="bigquery") if one is not None]
    except ParseError as error:
        first = error.errors[0] if error.errors else {}
        text = str(first.get("description") or error).split("\n")[0].rstrip(".")
        where = f" at [{first['line']}:{first['col']}]" if first.get("line") else ""
        raise invalid_query(f"Syntax error: {text}{where}") from error
    except TokenError as error:
        raise invalid_query(f"Syntax error: {error}") from error
    statements = [one for one in statements if not isinstance(one, exp.Semicolon)]
    if not statements:
        raise invalid_query("Syntax error: Unexpected end of script")
    if len(statements) > 1:
        raise not_implemented("a script of several statements")
    tree = statements[0]
    if not isinstance(tree, exp.Query):
        name = tree.name if isinstance(tree, exp.Command) else tree.key
        raise not_implemented(f"the statement {name.upper()}")
    for node in tree.walk():
        _check(node)
    return tree


def _check(node: exp.Expr) -> None:
    """Refuse an unsupported part of a query."""
    if isinstance(node, exp.Version | exp.TableSample | exp.Pivot):
        raise not_implemented(f"{node.sql(dialect='bigquery').strip()[:100]}")
    if isinstance(node, exp.With) and node.args.get("recursive"):
        raise not_implemented("WITH RECURSIVE")
    if isinstance(node, exp.Unnest) and node.args.get("offset"):
        raise not_implemented("UNNEST WITH OFFSET")
    if isinstance(node, exp.Unnest) and isinstance(node.parent, exp.From | exp.Join):
        if not node.args.get("alias"):
            raise not_implemented("UNNEST in FROM without an alias")
    elif isinstance(node, exp.DataType) and node.this not in _TYPES:
        raise not_implemented(f"the type {node.sql(dialect='bigquery')}")
    elif isinstance(node, exp.CountIf) and isinstance(node.this, exp.Distinct):
        raise not_implemented("COUNTIF(DISTINCT …)")
    elif isinstance(node, exp.Func | exp.SafeFunc) and type(node) not in _FUNCTIONS:
        raise not_implemented(f"the function in {node.sql(dialect='bigquery')[:100]}")


def adapt(tree: exp.Expr, now: dt.datetime) -> None:
    """Rewrite the expressions that sqlglot does not translate to the same result.

    Args:
        tree: the query, without parameters; modified in place.
        now: the value of CURRENT_TIMESTAMP.
    """
    # Bottom-up, so that a replacement contains the replacements of its descendants.
    for node in reversed(list(tree.walk())):
        change = _CHANGES.get(type(node))
        new = node if change is None else change(node, now)
        if new is not node:
            node.replace(new)


def duckdb_sql(tree: exp.Expr) -> str:
    """Generate DuckDB's SQL.

    Raises:
        BigQueryError: sqlglot cannot translate a part.
    """
    generator = Dialect.get_or_raise("duckdb").generator(
        identify=True, comments=False, unsupported_level=sqlglot.ErrorLevel.IGNORE
    )
    sql: str = generator.generate(tree)
    for message in generator.unsupported_messages:
        raise not_implemented(message)
    return sql


def name_columns(query: exp.Expr) -> None:
    """Name the columns of a query's result as BigQuery does (``f0_`` for an expression)."""
    select = query
    while isinstance(select, exp.SetOperation | exp.Subquery):
        select = select.this
    if not isinstance(select, exp.Select) or select.args.get("kind") == "STRUCT":
        return
    unnamed = 0
    for column in list(select.expressions):
        if column.is_star or isinstance(column, exp.Alias | exp.Aliases):
            continue
        if isinstance(column, exp.Column | exp.Dot) and column.name:
            name = column.name
        else:
            name, unnamed = f"f{unnamed}_", unnamed + 1
        column.replace(exp.alias_(column.copy(), name, quoted=True))


Change = Callable[[exp.Expr, dt.datetime], exp.Expr]


def _date(node: exp.Expr, _: dt.datetime) -> exp.Expr:
    """Cast DATE_ADD and DATE_SUB to DATE; in DuckDB they return a TIMESTAMP."""
    return exp.cast(node.copy(), "date")


def _number(node: exp.Expr, _: dt.datetime) -> exp.Expr:
    """Make 1.5 a DOUBLE, as in GoogleSQL (FLOAT64); in DuckDB it is a DECIMAL."""
    text = str(node.this)
    if node.is_string or not re.fullmatch(r"\d*\.\d*", text):
        return node
    return exp.Literal.number(f"{text}e0")


def _json(node: exp.Expr, _: dt.datetime) -> exp.Expr:
    if node.args.get("to_json"):
        raise not_implemented("TO_JSON")
    return exp.Anonymous(this=TO_JSON_STRING, expressions=[node.this.copy()])


def _count_if(node: exp.Expr, _: dt.datetime) -> exp.Expr:
    """Rewrite COUNTIF to COUNT: over no rows it returns 0; DuckDB's COUNTIF returns NULL."""
    one = exp.If(this=node.this.copy(), true=exp.Literal.number(1))
    return exp.Count(this=exp.Case(ifs=[one]))


def _divide(node: exp.Expr, _: dt.datetime) -> exp.Expr:
    """Raise an error on division by zero; DuckDB returns infinity."""
    divisor = node.expression
    if isinstance(divisor, exp.Literal) and float(divisor.this) != 0:
        return node
    failure = exp.Anonymous(this="error", expressions=[exp.Literal.string("division by zero")])
    is_zero = exp.EQ(this=divisor.copy(), expression=exp.Literal.number(0))
    case = exp.Case(ifs=[exp.If(this=is_zero, true=failure)], default=node.copy())
    return exp.Paren(this=case)


def _now(kind: str) -> Change:
    """Return the rewrite of the current date or time to ``now``, in UTC."""

    def change(node: exp.Expr, now: dt.datetime) -> exp.Expr:
        if node.this:
            raise not_implemented("the current time in a time zone")
        text = exp.Literal.string(now.astimezone(dt.UTC).isoformat(sep=" "))
        moment = exp.cast(text, exp.DataType.build("TIMESTAMP", dialect="bigquery"))
        return exp.cast(moment, exp.DataType.build(kind, dialect="bigquery"))

    return change


_CHANGES: dict[type[exp.Expr], Change] = {
    exp.CountIf: _count_if,
    exp.CurrentDate: _now("DATE"),
    exp.CurrentTimestamp: _now("TIMESTAMP"),
    exp.DateAdd: _date,
    exp.DateSub: _date,
    exp.Div: _divide,
    exp.JSONFormat: _json,
    exp.Literal: _number,
}
