"""GoogleSQL parsed, and made into DuckDB's SQL. sqlglot does most of it; here is the rest. Pure.

Scripts, procedures, user-defined functions, wildcard tables, views and the SQL of other dialects
are refused. Known to differ: CAST of a FLOAT64 to INT64 rounds halves to even, JSON texts have
whole numbers beyond 2^53 unquoted.
"""

import datetime as dt
import re
from collections.abc import Callable

import sqlglot
from sqlglot import exp
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import ParseError, TokenError

from gardener_dagster.local.bigquery.errors import invalid_query, not_implemented

_EXTRACTS: dict[str, tuple[str, type[exp.Binary], int]] = {
    # part: DuckDB's part, and what is done to it
    "DAYOFWEEK": ("DAYOFWEEK", exp.Add, 1),
    "ISOWEEK": ("WEEK", exp.Add, 0),
    "MICROSECOND": ("MICROSECOND", exp.Mod, 1_000_000),
    "MILLISECOND": ("MILLISECOND", exp.Mod, 1000),
}
_HARMLESS = ("EXTRACT from TIMESTAMPTZ",)  # time zones: DuckDB's is UTC here, as BigQuery's


def parse(sql: str) -> exp.Expr:
    """The one statement of a query.

    Raises:
        BigQueryError: it is no GoogleSQL, or a script.
    """
    try:
        statements = [one for one in sqlglot.parse(sql, dialect="bigquery") if one is not None]
    except ParseError as error:
        first = error.errors[0] if error.errors else {}
        said = str(first.get("description") or error).split("\n")[0].rstrip(".")
        where = f" at [{first['line']}:{first['col']}]" if first.get("line") else ""
        raise invalid_query(f"Syntax error: {said}{where}") from error
    except TokenError as error:
        raise invalid_query(f"Syntax error: {error}") from error
    statements = [one for one in statements if not isinstance(one, exp.Semicolon)]
    if not statements:
        raise invalid_query("Syntax error: Unexpected end of script")
    if len(statements) > 1:
        raise not_implemented("A script of several statements")
    tree = statements[0]
    if isinstance(tree, exp.Command):
        raise not_implemented(f"The statement {tree.name.upper()}")
    return tree


def adapt(tree: exp.Expr, now: dt.datetime) -> exp.Expr:
    """The statement with what DuckDB has otherwise said DuckDB's way.

    Args:
        tree: with its parameters filled in; it is changed.
        now: what CURRENT_TIMESTAMP is.
    """
    for unnest in list(tree.find_all(exp.Unnest)):
        _offset(unnest)
        _spread(unnest)
    for aggregate in list(tree.find_all(exp.ArrayAgg)):
        _array_agg(aggregate)
    # From the leaves up: what is replaced keeps what was replaced within it.
    for node in reversed(list(tree.walk())):
        change = _CHANGES.get(type(node))
        if change is None:
            continue
        new = change(node, now)
        if new is not node:
            if node is tree:
                tree = new
            else:
                node.replace(new)
    return tree


def duckdb_sql(tree: exp.Expr) -> str:
    """DuckDB's SQL.

    Raises:
        BigQueryError: there is none for it.
    """
    generator = Dialect.get_or_raise("duckdb").generator(
        identify=True, comments=False, unsupported_level=sqlglot.ErrorLevel.IGNORE
    )
    sql: str = generator.generate(tree)
    for message in generator.unsupported_messages:
        if not message.startswith(_HARMLESS):
            raise not_implemented(message)
    return sql


def name_columns(query: exp.Expr) -> None:
    """Gives the columns of a query's result the names that BigQuery gives them."""
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


def _offset(unnest: exp.Unnest) -> None:
    """WITH OFFSET counts from 0, WITH ORDINALITY from 1."""
    offset = unnest.args.get("offset")
    scope = unnest.find_ancestor(exp.Select)
    if not isinstance(offset, exp.Identifier) or scope is None:
        return
    for column in list(scope.find_all(exp.Column)):
        if column.name.lower() == offset.name.lower() and not column.table:
            one = exp.Paren(this=exp.Sub(this=column.copy(), expression=exp.Literal.number(1)))
            named = isinstance(column.parent, exp.Select) and column.arg_key == "expressions"
            column.replace(exp.alias_(one, column.name, quoted=True) if named else one)


def _spread(unnest: exp.Unnest) -> None:
    """Without an alias, the fields of an array's records are columns."""
    array = unnest.expressions[0] if unnest.expressions else None
    in_from = isinstance(unnest.parent, exp.From | exp.Join)
    if unnest.args.get("alias") or unnest.args.get("offset") or not in_from:
        return
    if array is None or isinstance(array, exp.Array):
        return  # sqlglot does it
    depth = exp.Kwarg(this=exp.var("max_depth"), expression=exp.Literal.number(2))
    call = exp.Anonymous(this="unnest", expressions=[array.copy(), depth])
    unnest.replace(exp.Subquery(this=exp.Select(expressions=[call])))


def _array_agg(node: exp.ArrayAgg) -> None:
    """DuckDB's has no LIMIT, and IGNORE NULLS is a FILTER."""
    limit = None
    if isinstance(node.this, exp.Limit):
        limit = node.this.expression.copy()
        node.set("this", node.this.this)
    whole: exp.Expr = node
    if isinstance(node.parent, exp.IgnoreNulls | exp.RespectNulls):
        whole = node.parent
    new: exp.Expr = node.copy()
    if isinstance(whole, exp.IgnoreNulls):
        value = node.this
        while isinstance(value, exp.Order | exp.Distinct):
            value = value.this if isinstance(value, exp.Order) else value.expressions[0]
        condition = exp.Not(this=exp.Is(this=value.copy(), expression=exp.null()))
        new = exp.Filter(this=new, expression=exp.Where(this=condition))
    if limit is not None:
        new = exp.Anonymous(this="list_slice", expressions=[new, exp.Literal.number(1), limit])
    whole.replace(new)


Change = Callable[[exp.Expr, dt.datetime], exp.Expr]


def _cast(kind: str) -> Change:
    """The same, cast: DuckDB's function gives another type."""

    def change(node: exp.Expr, _: dt.datetime) -> exp.Expr:
        return exp.cast(node.copy(), exp.DataType.build(kind, dialect="bigquery"))

    return change


def _call(name: str) -> Change:
    """A function of another name, with the same arguments."""

    def change(node: exp.Expr, _: dt.datetime) -> exp.Expr:
        arguments = [node.this, *node.expressions]
        return exp.Anonymous(this=name, expressions=[one.copy() for one in arguments])

    return change


def _number(node: exp.Expr, _: dt.datetime) -> exp.Expr:
    """GoogleSQL's 1.5 is a FLOAT64, DuckDB's a DECIMAL."""
    text = str(node.this)
    if node.is_string or not re.fullmatch(r"\d*\.\d*", text):
        return node
    return exp.Literal.number(f"{text}e0")


def _decimal(node: exp.Expr, _: dt.datetime) -> exp.Expr:
    kinds = {exp.DataType.Type.DECIMAL: 9, exp.DataType.Type.BIGDECIMAL: 18}
    if node.this not in kinds or node.expressions:
        return node
    return exp.DataType.build(f"DECIMAL(38, {kinds[node.this]})", dialect="duckdb")


def _timestamp_diff(node: exp.Expr, _: dt.datetime) -> exp.Expr:
    """Counts whole units between; DuckDB's date_diff counts the boundaries."""
    unit = exp.Literal.string(node.text("unit") or "SECOND")
    return exp.Anonymous(
        this="date_sub", expressions=[unit, node.expression.copy(), node.this.copy()]
    )


def _extract(node: exp.Expr, _: dt.datetime) -> exp.Expr:
    part = node.this.name.upper()
    if part == "DATE":
        return exp.cast(node.expression.copy(), "date")
    if part not in _EXTRACTS:
        return node
    other, operation, number = _EXTRACTS[part]
    call = exp.Extract(this=exp.var(other), expression=node.expression.copy())
    return exp.Paren(this=operation(this=call, expression=exp.Literal.number(number)))


def _json(node: exp.Expr, _: dt.datetime) -> exp.Expr:
    name = "to_json" if node.args.get("to_json") else "bq_to_json_string"
    return exp.Anonymous(this=name, expressions=[node.this.copy()])


def _divide(node: exp.Expr, _: dt.datetime) -> exp.Expr:
    """Division by zero is an error; DuckDB's gives infinity."""
    divisor = node.expression
    if isinstance(divisor, exp.Literal) and float(divisor.this) != 0:
        return node
    failure = exp.Anonymous(this="error", expressions=[exp.Literal.string("division by zero")])
    is_zero = exp.EQ(this=divisor.copy(), expression=exp.Literal.number(0))
    case = exp.Case(ifs=[exp.If(this=is_zero, true=failure)], default=node.copy())
    return exp.Paren(this=case)


def _now(kind: str) -> Change:
    """The time of the server's clock; in UTC whatever zone is asked for."""

    def change(node: exp.Expr, now: dt.datetime) -> exp.Expr:
        if node.this:
            raise not_implemented("The current time in a time zone")
        text = exp.Literal.string(now.astimezone(dt.UTC).isoformat(sep=" "))
        moment = exp.cast(text, exp.DataType.build("TIMESTAMP", dialect="bigquery"))
        return exp.cast(moment, exp.DataType.build(kind, dialect="bigquery"))

    return change


_CHANGES: dict[type[exp.Expr], Change] = {
    exp.ByteLength: _call("strlen"),
    exp.CurrentDate: _now("DATE"),
    exp.CurrentDatetime: _now("DATETIME"),
    exp.CurrentTime: _now("TIME"),
    exp.CurrentTimestamp: _now("TIMESTAMP"),
    exp.DataType: _decimal,
    exp.DateAdd: _cast("DATE"),
    exp.DateSub: _cast("DATE"),
    exp.DateTrunc: _cast("DATE"),
    exp.Div: _divide,
    exp.Extract: _extract,
    exp.Format: _call("printf"),
    exp.JSONFormat: _json,
    exp.Literal: _number,
    exp.SafeFunc: _call("try"),
    exp.StrToTime: _cast("TIMESTAMP"),
    exp.TimestampDiff: _timestamp_diff,
    exp.UnixToTime: _cast("TIMESTAMP"),
}
