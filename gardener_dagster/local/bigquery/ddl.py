"""CREATE, ALTER and DROP of tables and schemas (datasets).

https://cloud.google.com/bigquery/docs/reference/standard-sql/data-definition-language. Columns,
PARTITION BY, CLUSTER BY, AS SELECT, ADD COLUMN and the options below; no views, functions or
copies.
"""

from typing import Any

from sqlglot import exp

from gardener_dagster.local.bigquery.binder import Binder, check_limit, default_dataset, report
from gardener_dagster.local.bigquery.database import Connection
from gardener_dagster.local.bigquery.errors import (
    duplicate,
    invalid_query,
    not_implemented,
)
from gardener_dagster.local.bigquery.partitions import reset_expirations
from gardener_dagster.local.bigquery.scans import table_id
from gardener_dagster.local.bigquery.schema import from_json, to_json
from gardener_dagster.local.bigquery.tables import Resource, TableId
from gardener_dagster.local.bigquery.task import Task
from gardener_dagster.local.bigquery.translate import name_columns
from gardener_dagster.local.bigquery.writes import EMPTY, TRUNCATE, Write

STATEMENTS = (exp.Create, exp.Drop, exp.Alter)
_DAY = 86_400_000


class Ddl:
    """Statements that change tables and datasets.

    Args:
        binder: finds the tables of AS SELECT.
    """

    def __init__(self, binder: Binder) -> None:
        self._binder = binder

    def run(self, task: Task, tree: exp.Expr) -> None:
        """Runs one.

        Raises:
            BigQueryError: it is wrong.
        """
        kind = str(tree.args.get("kind") or "").upper()
        match tree, kind:
            case exp.Create(), "TABLE" if tree.expression:
                self._create_as(task, tree)
            case exp.Create(), "TABLE":
                self._create(task, tree)
            case exp.Create(), "SCHEMA":
                self._create_schema(task, tree)
            case exp.Drop(), "TABLE":
                self._drop(task, tree)
            case exp.Drop(), "SCHEMA":
                self._drop_schema(task, tree)
            case exp.Alter(), "TABLE":
                self._alter(task, tree)
            case _:
                raise not_implemented(f"{tree.key.upper()} {kind}")

    def _table(self, task: Task, node: exp.Expr) -> TableId:
        named = node.this if isinstance(node, exp.Schema) else node
        if not isinstance(named, exp.Table):
            raise invalid_query("Syntax error: expected the name of a table")
        return table_id(named, default_dataset(task.configuration["query"], task.project))

    def _create(self, task: Task, tree: exp.Create) -> None:
        table = self._table(task, tree.this)
        if tree.args.get("clone") or tree.find(exp.LikeProperty):
            raise not_implemented("CREATE TABLE LIKE, COPY or CLONE")
        if not isinstance(tree.this, exp.Schema):
            raise invalid_query("CREATE TABLE needs columns or AS SELECT")
        columns = [_column(one) for one in tree.this.expressions]
        body = _properties(tree) | {"schema": {"fields": to_json(from_json(columns))}}
        if task.dry_run:
            return
        with task.writing() as connection:
            have = task.catalog.find(connection, table)
            done = "CREATE"
            if have and tree.args.get("exists"):
                done = "SKIP"
            elif have and tree.args.get("replace"):
                task.catalog.delete_table(connection, have)
                done = "REPLACE"
            if done != "SKIP":
                task.catalog.create_table(connection, table, body, task.now())
            _report(task, "CREATE_TABLE", done, table)

    def _create_as(self, task: Task, tree: exp.Create) -> None:
        configuration = task.configuration["query"]
        table = self._table(task, tree.this)
        if isinstance(tree.this, exp.Schema):
            raise not_implemented("CREATE TABLE with columns and AS SELECT")
        query = tree.expression
        name_columns(query)
        with (
            task.database.staging() as store,
            task.database.cursor() as cursor,
            task.cancellable(cursor),
        ):
            cursor.begin()
            have = task.catalog.find(cursor, table)
            if have and tree.args.get("exists"):
                _report(task, "CREATE_TABLE_AS_SELECT", "SKIP", table)
                return
            plan = self._binder.bind(query, cursor, default_dataset(configuration, task.project))
            fields = self._binder.fields(plan)
            report(task, plan, "CREATE_TABLE_AS_SELECT")
            check_limit(configuration, plan)
            if task.dry_run:
                return
            cursor.execute(self._binder.create_sql(store, plan, fields))
            cursor.commit()
            with task.writing() as connection:
                replaces = bool(have and tree.args.get("replace"))
                if have and replaces:
                    task.catalog.delete_table(connection, have)
                write = Write(
                    destination=table,
                    disposition=TRUNCATE if replaces else EMPTY,
                    properties=_properties(tree),
                )
                if have and not replaces:
                    raise duplicate("Table", table)
                write.apply(connection, task.catalog, store, fields, task.now())
                _report(task, "CREATE_TABLE_AS_SELECT", "REPLACE" if replaces else "CREATE", table)

    def _create_schema(self, task: Task, tree: exp.Create) -> None:
        project, dataset = _schema_name(tree.this, task)
        body: Resource = {"datasetReference": {"datasetId": dataset}}
        location = tree.find(exp.LocationProperty)
        if location is not None:
            body["location"] = location.name
        if task.dry_run:
            return
        with task.writing() as connection:
            have = task.catalog.find_dataset(connection, project, dataset)
            done = "SKIP" if have and tree.args.get("exists") else "CREATE"
            if done == "CREATE":
                task.catalog.create_dataset(connection, project, body, task.now())
            _report(task, "CREATE_SCHEMA", done)

    def _drop(self, task: Task, tree: exp.Drop) -> None:
        table = self._table(task, _dropped(tree))
        if task.dry_run:
            return
        with task.writing() as connection:
            have = task.catalog.find(connection, table)
            skips = have is None and bool(tree.args.get("exists"))
            if not skips:
                task.catalog.delete_table(connection, task.catalog.table(connection, table))
            _report(task, "DROP_TABLE", "SKIP" if skips else "DROP", table)

    def _drop_schema(self, task: Task, tree: exp.Drop) -> None:
        project, dataset = _schema_name(_dropped(tree), task)
        if task.dry_run:
            return
        with task.writing() as connection:
            have = task.catalog.find_dataset(connection, project, dataset)
            skips = have is None and bool(tree.args.get("exists"))
            if not skips:
                contents = bool(tree.args.get("cascade"))
                task.catalog.delete_dataset(connection, project, dataset, contents=contents)
            _report(task, "DROP_SCHEMA", "SKIP" if skips else "DROP")

    def _alter(self, task: Task, tree: exp.Alter) -> None:
        table = self._table(task, tree.this)
        if task.dry_run:
            return
        with task.writing() as connection:
            if tree.args.get("exists") and task.catalog.find(connection, table) is None:
                _report(task, "ALTER_TABLE", "SKIP", table)
                return
            for action in tree.args.get("actions") or ():
                self._alter_one(task, connection, table, action)
            _report(task, "ALTER_TABLE", "ALTER", table)

    def _alter_one(
        self, task: Task, connection: Connection, table: TableId, action: exp.Expr
    ) -> None:
        have = task.catalog.table(connection, table)
        if isinstance(action, exp.ColumnDef):
            [new] = from_json([_column(action)])
            known = {field.name.lower() for field in have.fields}
            if new.name.lower() in known:
                if action.args.get("exists"):
                    return
                raise invalid_query(f"Column already exists: {new.name}")
            task.catalog.add_fields(connection, have, (new,))
        elif isinstance(action, exp.AlterSet):
            body = _options(action.find_all(exp.Property))
            made = task.catalog.patch_table(connection, table, body, if_match=None, now=task.now())
            reset_expirations(connection, made)
        else:
            raise not_implemented(f"ALTER TABLE {action.key.upper()}")


def _dropped(tree: exp.Drop) -> exp.Expr:
    tables = tree.args.get("tables") or [tree.this]
    found: exp.Expr = tables[0]
    return found


def _schema_name(node: exp.Expr, task: Task) -> tuple[str, str]:
    if not isinstance(node, exp.Table):
        raise invalid_query("Syntax error: expected the name of a schema")
    parts = [part.name for part in node.parts]
    return ".".join(parts[:-1]) or task.project, parts[-1]


def _column(node: exp.Expr) -> Resource:
    """A column definition, or a field of a STRUCT, as the REST API has it."""
    if not isinstance(node, exp.ColumnDef) or node.kind is None:
        raise not_implemented(f"In a table's columns: {node.sql('bigquery')}")
    body = _type(node.kind) | {"name": node.name}
    for constraint in node.args.get("constraints") or ():
        kind = constraint.kind
        if isinstance(kind, exp.NotNullColumnConstraint):
            body["mode"] = "REQUIRED"
        elif isinstance(kind, exp.Properties):
            body |= _options(kind.expressions)
        else:
            raise not_implemented(f"In a column: {constraint.sql('bigquery')}")
    return body


def _type(kind: exp.DataType) -> Resource:
    if kind.is_type("array"):
        return _type(kind.expressions[0]) | {"mode": "REPEATED"}
    if kind.is_type("struct"):
        return {"type": "RECORD", "fields": [_column(one) for one in kind.expressions]}
    return {"type": kind.sql("bigquery").split("(")[0]}


def _properties(tree: exp.Create) -> Resource:
    """PARTITION BY, CLUSTER BY and OPTIONS as the REST API has them."""
    body: Resource = {}
    properties = tree.args.get("properties")
    options = []
    for one in properties.expressions if properties else ():
        match one:
            case exp.PartitionedByProperty():
                body["timePartitioning"] = _partitioning(one.this)
            case exp.ClusterProperty():
                body["clustering"] = {"fields": [column.name for column in one.expressions]}
            case exp.Property() if type(one) is exp.Property:
                options.append(one)
            case _:
                raise not_implemented(f"CREATE TABLE … {one.sql('bigquery')}")
    for key, value in _options(options).items():
        if isinstance(value, dict) and key in body:
            body[key] |= value
        else:
            body[key] = value
    return body


def _partitioning(node: exp.Expr) -> Resource:
    unit = "DAY"
    if isinstance(node, exp.Cast):  # what is put around functions for DuckDB
        node = node.this
    if isinstance(node, exp.TimestampTrunc | exp.DateTrunc | exp.DatetimeTrunc):
        unit = node.text("unit").upper() or "DAY"
    column = node.find(exp.Column, exp.Identifier)
    if column is None:
        raise not_implemented(f"PARTITION BY {node.sql('bigquery')}")
    return {"type": unit, "field": column.name}


def _options(properties: Any) -> Resource:  # noqa: ANN401 - an iterable of sqlglot's Property
    body: Resource = {}
    for one in properties:
        value = one.args["value"]
        match one.name.lower():
            case "require_partition_filter":
                body["requirePartitionFilter"] = bool(value.this)
            case "partition_expiration_days":
                life = round(float(value.name) * _DAY)
                body["timePartitioning"] = {"expirationMs": str(life)}
            case "description":
                body["description"] = value.name
            case "friendly_name":
                body["friendlyName"] = value.name
            case "labels":
                pairs = [[part.name for part in pair.expressions] for pair in value.expressions]
                body["labels"] = dict(pairs)
            case name:
                raise not_implemented(f"OPTIONS({name})")
    return body


def _report(task: Task, kind: str, done: str, table: TableId | None = None) -> None:
    query = task.statistics.get("query") or {}
    query = query | {"statementType": kind, "ddlOperationPerformed": done}
    if table is not None:
        query["ddlTargetTable"] = table.reference
    task.record(query=query)
