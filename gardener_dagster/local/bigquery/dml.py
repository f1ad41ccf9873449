"""INSERT, UPDATE, DELETE, MERGE and TRUNCATE TABLE.

https://cloud.google.com/bigquery/docs/reference/standard-sql/dml-syntax
"""

# ruff: noqa: S608 - this package quotes its identifiers and literals

from collections.abc import Mapping
from typing import Any

from sqlglot import exp

from gardener_dagster.local.bigquery.binder import (
    Binder,
    Plan,
    check_limit,
    default_dataset,
    report,
)
from gardener_dagster.local.bigquery.database import Connection
from gardener_dagster.local.bigquery.errors import invalid_query
from gardener_dagster.local.bigquery.partitions import measure
from gardener_dagster.local.bigquery.scans import table_id
from gardener_dagster.local.bigquery.schema import column_list, find, quoted
from gardener_dagster.local.bigquery.tables import Table
from gardener_dagster.local.bigquery.task import Task
from gardener_dagster.local.bigquery.translate import duckdb_sql
from gardener_dagster.local.bigquery.writes import APPEND, Write, check_required

STATEMENTS = (exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.TruncateTable)


class Dml:
    """Statements that change rows.

    Args:
        binder: finds their tables.
    """

    def __init__(self, binder: Binder) -> None:
        self._binder = binder

    def run(self, task: Task, tree: exp.Expr) -> None:
        """Runs one.

        Raises:
            BigQueryError: it is wrong.
        """
        if isinstance(tree, exp.Insert):
            self._insert(task, tree)
        elif isinstance(tree, exp.TruncateTable):
            self._truncate(task, tree)
        else:
            self._change(task, tree)

    def _insert(self, task: Task, tree: exp.Insert) -> None:
        configuration = task.configuration["query"]
        default = default_dataset(configuration, task.project)
        named = tree.this.this if isinstance(tree.this, exp.Schema) else tree.this
        with (
            task.database.staging() as store,
            task.database.cursor() as cursor,
            task.cancellable(cursor),
        ):
            cursor.begin()
            table = task.catalog.table(cursor, table_id(named, default))
            columns = _columns(tree, table)
            plan = self._binder.bind(tree.expression, cursor, default)
            report(task, plan, "INSERT")
            check_limit(configuration, plan)
            if task.dry_run:
                return
            cursor.execute(f"CREATE TABLE {store} ({column_list(table.fields, defaults=True)})")
            [count] = cursor.execute(
                f"INSERT INTO {store} ({columns}) {duckdb_sql(plan.tree)}"
            ).fetchone() or (0,)
            cursor.commit()
            write = Write(destination=table.id, disposition=APPEND, properties={})
            with task.writing() as connection:
                write.apply(connection, task.catalog, store, table.fields, task.now())
                _report_rows(task, {"insertedRowCount": count})

    def _change(self, task: Task, tree: exp.Expr) -> None:
        kind = type(tree).__name__.upper()
        if isinstance(tree, exp.Delete) and not tree.this and tree.args.get("tables"):
            tree.set("this", tree.args["tables"][0])  # DELETE without FROM
            tree.set("tables", None)
        if isinstance(tree, exp.Delete | exp.Update) and not tree.args.get("where"):
            raise invalid_query(f"{kind} must have a WHERE clause")
        for insert in tree.find_all(exp.Insert):
            if isinstance(insert.this, exp.Var) and insert.name.upper() == "ROW":
                insert.set("this", exp.Star())
        if task.dry_run:
            with task.database.reading() as connection:
                self._bind(task, tree, connection, kind)
            return
        with task.writing() as connection:
            plan, table = self._bind(task, tree, connection, kind)
            counts = _counts(connection, duckdb_sql(plan.tree), tree)
            check_required(connection, table.store, table, table.fields)
            ids = sorted(plan.partitions[table.store]) if isinstance(tree, exp.Delete) else None
            measure(connection, table, task.now(), ids if table.partitioning else None)
            task.catalog.touched(connection, table, task.now())
            _report_rows(task, counts)

    def _bind(
        self, task: Task, tree: exp.Expr, connection: Connection, kind: str
    ) -> tuple[Plan, Table]:
        configuration = task.configuration["query"]
        target = tree.this
        default = default_dataset(configuration, task.project)
        plan = self._binder.bind(tree, connection, default, target=target)
        report(task, plan, kind)
        check_limit(configuration, plan)
        table = next(scan.table for scan in plan.scans if scan.node is target)
        return plan, table

    def _truncate(self, task: Task, tree: exp.TruncateTable) -> None:
        default = default_dataset(task.configuration["query"], task.project)
        if task.dry_run:
            return
        with task.writing() as connection:
            table = task.catalog.table(connection, table_id(tree.expressions[0], default))
            [count] = connection.execute(f"DELETE FROM {table.store}").fetchone() or (0,)
            measure(connection, table, task.now())
            task.catalog.touched(connection, table, task.now())
            task.record(query={"statementType": "TRUNCATE_TABLE"})
            _report_rows(task, {"deletedRowCount": count})


def _columns(tree: exp.Insert, table: Table) -> str:
    """The target's columns that an INSERT names, or all.

    Raises:
        BigQueryError: the table has no such column.
    """
    names = [field.name for field in table.fields]
    if isinstance(tree.this, exp.Schema):
        names = [column.name for column in tree.this.expressions]
    for name in names:
        if find(table.fields, name) is None:
            raise invalid_query(f"Column {name} is not present in table {table.id}")
    return ", ".join(quoted(name) for name in names)


def _counts(connection: Connection, sql: str, tree: exp.Expr) -> dict[str, int]:
    """Runs the statement, and counts the rows by what became of them."""
    if isinstance(tree, exp.Merge):
        rows = connection.execute(f"{sql} RETURNING merge_action").fetchall()
        actions = [action for (action,) in rows]
        return {
            "insertedRowCount": actions.count("INSERT"),
            "updatedRowCount": actions.count("UPDATE"),
            "deletedRowCount": actions.count("DELETE"),
        }
    [count] = connection.execute(sql).fetchone() or (0,)
    return {"deletedRowCount" if isinstance(tree, exp.Delete) else "updatedRowCount": int(count)}


def _report_rows(task: Task, counts: Mapping[str, int]) -> None:
    stats: dict[str, Any] = {name: str(count) for name, count in counts.items()}
    rows = str(sum(counts.values()))
    query = task.statistics["query"]
    task.record(query=query | {"dmlStats": stats, "numDmlAffectedRows": rows})
