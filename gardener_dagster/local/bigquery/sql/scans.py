"""Find the tables that a query reads, and replace their names by those of DuckDB's tables."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlglot import exp
from sqlglot.errors import OptimizeError
from sqlglot.optimizer.scope import traverse_scope

from gardener_dagster.local.bigquery.catalog.catalog import Catalog
from gardener_dagster.local.bigquery.catalog.database import Connection
from gardener_dagster.local.bigquery.catalog.table import Table, TableId
from gardener_dagster.local.bigquery.errors import invalid_query, not_implemented
from gardener_dagster.local.bigquery.sql.partitions_view import view


@dataclass(frozen=True)
class Scan:
    """A reference to a table in a query.

    Attributes:
        node: the table's name in the query; ``bind`` replaces it by the DuckDB table's name.
    """

    node: exp.Table
    table: Table

    def columns(self, tree: exp.Expr) -> Collection[str]:
        """Return the top-level columns that the query reads, in lower case.

        This is an upper bound: every column whose name occurs anywhere in the query, or all columns
        if the query has a ``*`` or uses the table itself as a value.
        """
        own = {field.name.lower() for field in self.table.fields}
        names = {one.name.lower() for one in tree.find_all(exp.Identifier)}
        alias = self.node.alias.lower()
        if any(not isinstance(star.parent, exp.Count) for star in tree.find_all(exp.Star)) or any(
            one.name.lower() == alias and not one.table for one in tree.find_all(exp.Column)
        ):
            return own
        return own & names


def bind(tree: exp.Expr, connection: Connection, catalog: Catalog, default: TableId) -> list[Scan]:
    """Find the tables of a query, and replace their names by those of DuckDB's tables.

    Args:
        tree: the query; modified in place.
        connection: connection to the catalog.
        catalog: the catalog of the tables.
        default: default project and dataset of tables; its ``name`` is not used.

    Raises:
        BigQueryError: a table does not exist, or is of an unsupported kind.
    """
    try:
        nodes = [
            node
            for scope in traverse_scope(tree)
            for node, source in scope.selected_sources.values()
            if isinstance(node, exp.Table)
            and source is node  # not a common table expression, nor a subquery
        ]
    except OptimizeError as error:
        raise invalid_query(str(error)) from error
    scans = []
    for node in nodes:
        if node.name.upper().startswith("INFORMATION_SCHEMA."):
            node.replace(view(node, connection, catalog, default))
        else:
            scans.append(Scan(node, catalog.table(connection, _table_id(node, default))))
    for scan in scans:
        node = scan.node
        if not node.alias:  # the rest of the query refers to the table by this name
            name = exp.to_identifier(node.name, quoted=True)
            node.set("alias", exp.TableAlias(this=name))
        schema, _, store = scan.table.store.partition(".")
        node.set("this", exp.to_identifier(store, quoted=True))
        node.set("db", exp.to_identifier(schema, quoted=True))
        node.set("catalog", None)
    return scans


def _table_id(node: exp.Table, default: TableId) -> TableId:
    parts = [part.name for part in node.parts]
    if len(parts) == 1:
        if not default.dataset:
            raise invalid_query(
                f'Table "{parts[0]}" must be qualified with a dataset (e.g. dataset.table).'
            )
        parts.insert(0, default.dataset)
    if "*" in parts[-1]:
        raise not_implemented(f"the wildcard table {parts[-1]}")
    if "$" in parts[-1]:
        raise invalid_query(
            f"Invalid table name {parts[-1]!r}: GoogleSQL has no partition decorators"
        )
    return TableId(
        project=".".join(parts[:-2]) or default.project, dataset=parts[-2], name=parts[-1]
    )
