"""What a query reads: its tables, and which of their partitions its filters leave.

https://cloud.google.com/bigquery/docs/querying-partitioned-tables. A filter leaves partitions out
if it compares the bare partitioning column (or its date) with something constant, in WHERE, in an
inner join's ON, or outside of a subquery that passes the column through. BigQuery does not look
through joins (``a.date = b.date``) or functions of the column, and neither is done here.
"""

# ruff: noqa: S608 - this package quotes its identifiers and literals

from collections.abc import Iterator
from dataclasses import dataclass, field

from sqlglot import exp

from gardener_dagster.local.bigquery.catalog import Catalog
from gardener_dagster.local.bigquery.database import Connection
from gardener_dagster.local.bigquery.errors import invalid_query, not_implemented
from gardener_dagster.local.bigquery.information_schema import view
from gardener_dagster.local.bigquery.partitions import partition_ids
from gardener_dagster.local.bigquery.tables import Table, TableId

_COMPARISONS = (exp.EQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.NullSafeEQ)
_DATES = (exp.Paren, exp.Date, exp.TsOrDsToDate, exp.TimestampTrunc, exp.DateTrunc)
_OWNERS = (exp.Select, exp.Delete, exp.Update, exp.Merge)


@dataclass(frozen=True)
class Scan:
    """One place where a statement reads a table.

    Attributes:
        node: in the statement; it names the DuckDB table.
        filters: conditions on the partitioning column, all of which hold for what is read.
    """

    node: exp.Table
    table: Table
    filters: list[exp.Expr] = field(default_factory=list)


def bind(tree: exp.Expr, connection: Connection, catalog: Catalog, default: TableId) -> list[Scan]:
    """Finds the statement's tables, and names DuckDB's in it instead.

    Args:
        tree: the statement; it is changed.
        connection: to read the catalog.
        catalog: of the tables.
        default: project and dataset of a table that names none; the name is not used.

    Raises:
        BigQueryError: there is no such table.
    """
    scans = []
    for node in list(tree.find_all(exp.Table)):
        if not node.db and _is_cte(node):
            continue
        if node.name.upper().startswith("INFORMATION_SCHEMA."):
            node.replace(view(node, connection, catalog, default))
            continue
        scans.append(Scan(node, catalog.table(connection, table_id(node, default))))
    for scan in scans:
        # The alias first: that is what the statement calls the table.
        if not scan.node.alias:
            name = exp.to_identifier(scan.node.name, quoted=True)
            scan.node.set("alias", exp.TableAlias(this=name))
    for scan in scans:
        schema, _, store = scan.table.store.partition(".")
        scan.node.set("this", exp.to_identifier(store, quoted=True))
        scan.node.set("db", exp.to_identifier(schema, quoted=True))
        scan.node.set("catalog", None)
    return scans


def table_id(node: exp.Table, default: TableId) -> TableId:
    """The table that a statement names.

    Raises:
        BigQueryError: it names none.
    """
    parts = [part.name for part in node.parts]
    if len(parts) == 1:
        if not default.dataset:
            raise invalid_query(
                f'Table "{parts[0]}" must be qualified with a dataset (e.g. dataset.table).'
            )
        parts.insert(0, default.dataset)
    if "*" in parts[-1]:
        raise not_implemented(f"The wildcard table {parts[-1]}")
    if "$" in parts[-1]:
        raise invalid_query(
            f"Invalid table name {parts[-1]!r}: GoogleSQL has no partition decorators"
        )
    return TableId(
        project=".".join(parts[:-2]) or default.project, dataset=parts[-2], name=parts[-1]
    )


def find_filters(scan: Scan) -> None:
    """Finds the conditions that leave out partitions of a scan."""
    partitioning = scan.table.partitioning
    owner = scan.node.find_ancestor(*_OWNERS)
    if partitioning is not None and owner is not None:
        alias = scan.node.alias_or_name
        scan.filters.extend(_filters(owner, scan.node, alias, partitioning.column.name))


def check_filter(scan: Scan) -> None:
    """Refuses to read all partitions of a table that does not want that.

    https://cloud.google.com/bigquery/docs/querying-partitioned-tables#require_a_partition_filter_in_queries

    Raises:
        BigQueryError: the table requires a partition filter, and there is none.
    """
    partitioning = scan.table.partitioning
    if partitioning is None or not scan.table.filter_required or scan.filters:
        return
    name = f"{scan.table.id.dataset}.{scan.table.id.name}"
    raise invalid_query(
        f"Cannot query over table '{name}' without a filter over column(s)"
        f" '{partitioning.column.name}' that can be used for partition elimination"
    )


def partitions_read(scan: Scan, connection: Connection, conditions: str) -> list[str]:
    """Ids of the partitions that the filters leave, of those that have rows.

    Args:
        scan: of a partitioned table.
        connection: to the rows.
        conditions: the filters in DuckDB's SQL.
    """
    partitioning = scan.table.partitioning
    if partitioning is None or not scan.filters:
        return partition_ids(connection, scan.table)
    found = connection.execute(
        f"SELECT DISTINCT {partitioning.id_sql} FROM {scan.table.store} WHERE {conditions}"
    ).fetchall()
    return [one for (one,) in found]


def unqualified(condition: exp.Expr) -> exp.Expr:
    """A condition on one table without the table's alias."""
    copy = condition.copy()
    for column in copy.find_all(exp.Column):
        column.set("table", None)
    return copy


def _is_cte(node: exp.Table) -> bool:
    """Whether a name is that of a common table expression which is visible there."""
    low = node.name.lower()
    child: exp.Expr = node
    ancestor = node.parent
    while ancestor is not None:
        visible: list[exp.Expr] = []
        if isinstance(ancestor, exp.With):
            # One that is being defined sees those before it; itself only if it is recursive.
            visible = ancestor.expressions
            if not ancestor.args.get("recursive"):
                visible = visible[: visible.index(child)]
        elif (with_ := ancestor.args.get("with_")) is not None and with_ is not child:
            visible = with_.expressions
        if any(cte.alias.lower() == low for cte in visible):
            return True
        child, ancestor = ancestor, ancestor.parent
    return False


def _filters(owner: exp.Expr, source: exp.Expr, alias: str, column: str) -> Iterator[exp.Expr]:
    """Conditions of a statement on a column of one of its sources, its own and from outside."""
    for condition in _conjuncts(owner, source):
        if _is_filter(condition, alias, column):
            yield condition
    if isinstance(owner, exp.Select):
        yield from _outer_filters(owner, alias, column)


def _conjuncts(owner: exp.Expr, source: exp.Expr) -> Iterator[exp.Expr]:
    where = owner.args.get("where")
    if where is not None:
        yield from where.this.flatten() if isinstance(where.this, exp.And) else [where.this]
    if isinstance(owner, exp.Merge):
        on = owner.args["on"]
        yield from on.flatten() if isinstance(on, exp.And) else [on]
    for join in owner.args.get("joins") or ():
        on, side = join.args.get("on"), join.side.upper()
        inner = not side or (side == "LEFT" and join.this is source)
        if on is not None and inner:
            yield from on.flatten() if isinstance(on, exp.And) else [on]


def _outer_filters(select: exp.Select, alias: str, column: str) -> Iterator[exp.Expr]:
    """Conditions of the query around a subquery, on a column that this passes through."""
    if not _passes(select, column):
        return
    name = _output_name(select, alias, column)
    query: exp.Expr = select
    while isinstance(query.parent, exp.SetOperation):
        query = query.parent
    holder = query.parent
    if not name or holder is None:
        return
    if isinstance(holder, exp.Subquery) and isinstance(holder.parent, exp.From | exp.Join):
        owner = holder.find_ancestor(exp.Select)
        if owner is not None:
            yield from _renamed(_filters(owner, holder, holder.alias, name), column)
    elif isinstance(holder, exp.CTE):
        yield from _renamed(_cte_filters(holder, name), column)


def _cte_filters(cte: exp.CTE, name: str) -> list[exp.Expr]:
    """All that hold for every use of a common table expression: one use, for short."""
    statement = cte.find_ancestor(exp.With)
    root = statement.parent if statement is not None else None
    if root is None:
        return []
    uses = [
        table
        for table in root.find_all(exp.Table)
        if not table.db and table.name.lower() == cte.alias.lower()
    ]
    if len(uses) != 1:
        return []
    owner = uses[0].find_ancestor(exp.Select)
    return list(_filters(owner, uses[0], uses[0].alias_or_name, name)) if owner else []


def _renamed(conditions: Iterator[exp.Expr] | list[exp.Expr], column: str) -> Iterator[exp.Expr]:
    for condition in conditions:
        copy = condition.copy()
        for one in copy.find_all(exp.Column):
            one.replace(exp.column(exp.to_identifier(column, quoted=True)))
        yield copy


def _passes(select: exp.Select, column: str) -> bool:
    """Whether a condition on the result is one on what is read."""
    if any(select.args.get(part) for part in ("limit", "offset", "qualify")):
        return False
    if any(one.find(exp.Window) for one in select.expressions):
        return False
    group = select.args.get("group")
    if group is not None:
        return any(
            isinstance(key, exp.Column) and key.name.lower() == column.lower()
            for key in group.expressions
        )
    return not any(one.find(exp.AggFunc) for one in select.expressions)


def _output_name(select: exp.Select, alias: str, column: str) -> str:
    for one in select.expressions:
        bare = one.unalias()
        if isinstance(bare, exp.Star) or (isinstance(bare, exp.Column) and bare.is_star):
            star = bare if isinstance(bare, exp.Star) else bare.this
            owner = "" if isinstance(bare, exp.Star) else bare.table
            left_out = [e.name.lower() for e in star.args.get("except_") or ()]
            if owner.lower() in ("", alias.lower()) and column.lower() not in left_out:
                return column
        elif _is_column(bare, alias, column):
            return str(one.alias_or_name)
    return ""


def _is_column(node: exp.Expr | None, alias: str, column: str) -> bool:
    return (
        isinstance(node, exp.Column)
        and node.name.lower() == column.lower()
        and node.table.lower() in ("", alias.lower())
    )


def _is_filter(node: exp.Expr, alias: str, column: str) -> bool:
    """Whether a condition can be used for partition elimination."""
    if isinstance(node, exp.Paren):
        return _is_filter(node.this, alias, column)
    if isinstance(node, exp.Or):
        return all(_is_filter(one, alias, column) for one in node.flatten())
    if not _is_constant(node, alias, column):
        return False
    if isinstance(node, exp.And):
        return any(_is_filter(one, alias, column) for one in node.flatten())
    if isinstance(node, exp.Not):
        return isinstance(node.this, exp.Is) and _is_bare(node.this.this, alias, column)
    if isinstance(node, _COMPARISONS):
        return any(_is_bare(side, alias, column) for side in (node.this, node.expression))
    return isinstance(node, exp.Between | exp.In | exp.Is) and _is_bare(node.this, alias, column)


def _is_bare(node: exp.Expr | None, alias: str, column: str) -> bool:
    """Whether something is the column, or its date or day."""
    while isinstance(node, _DATES) or (
        isinstance(node, exp.Cast) and node.is_type("date", "timestamp", "timestamptz")
    ):
        node = node.this
    return _is_column(node, alias, column)


def _is_constant(node: exp.Expr, alias: str, column: str) -> bool:
    """Whether a condition is about the column and nothing else that is read."""
    return node.find(exp.Query) is None and all(
        _is_column(one, alias, column) for one in node.find_all(exp.Column)
    )
