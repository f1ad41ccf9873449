"""Query jobs.

https://cloud.google.com/bigquery/docs/reference/rest/v2/Job#JobConfigurationQuery. SELECT is here:
its result goes into the destination that the job names, or into a table that nobody else sees, for
a day.
"""

import datetime as dt
import uuid

import duckdb
from sqlglot import exp

from gardener_dagster.local.bigquery import ddl, dml
from gardener_dagster.local.bigquery.binder import Binder, check_limit, default_dataset, report
from gardener_dagster.local.bigquery.catalog import Catalog
from gardener_dagster.local.bigquery.database import Database
from gardener_dagster.local.bigquery.errors import BigQueryError, invalid, not_implemented
from gardener_dagster.local.bigquery.functions import install
from gardener_dagster.local.bigquery.parameters import fill_in
from gardener_dagster.local.bigquery.planner import Planner, query_error
from gardener_dagster.local.bigquery.schema import Fields, to_json
from gardener_dagster.local.bigquery.tables import Resource, TableId, millis
from gardener_dagster.local.bigquery.task import Task
from gardener_dagster.local.bigquery.translate import adapt, name_columns, parse
from gardener_dagster.local.bigquery.writes import EMPTY, Write

ANONYMOUS = "_anonymous"
"""The dataset of results without a destination."""

_RESULT_LIFE = dt.timedelta(days=1)


class QueryWork:
    """What query jobs do.

    Args:
        database: of the rows.
        catalog: of the tables.
    """

    def __init__(self, database: Database, catalog: Catalog) -> None:
        self._database = database
        self._planner = Planner()
        with database.cursor() as cursor:
            install(cursor)
        self._binder = Binder(catalog, self._planner)
        self._dml, self._ddl = dml.Dml(self._binder), ddl.Ddl(self._binder)

    def close(self) -> None:
        """Ends the planner."""
        self._planner.close()

    def check(self, configuration: Resource, project: str) -> None:
        """Refuses what can be no query job.

        Raises:
            BigQueryError: no query, legacy SQL, or options that do not go together.
        """
        if not configuration.get("query"):
            raise BigQueryError("required", "Required parameter is missing: query")
        if configuration.get("useLegacySql"):
            raise not_implemented("Legacy SQL")
        if configuration.get("destinationTable"):
            Write.of(configuration, project=project, disposition=EMPTY)
        elif configuration.get("schemaUpdateOptions"):
            raise invalid("Schema update options need a destination table")

    def run(self, task: Task) -> None:
        """Runs the statement.

        Raises:
            BigQueryError: it is wrong, reads too much, or its destination refuses the result.
        """
        configuration = task.configuration["query"]
        tree = parse(configuration["query"])
        fill_in(tree, configuration.get("queryParameters") or ())
        if tree.find(exp.FarmFingerprint):
            raise not_implemented("FARM_FINGERPRINT")
        tree = adapt(tree, task.now())
        try:
            if isinstance(tree, exp.Query):
                self._select(task, tree)
            elif isinstance(tree, dml.STATEMENTS):
                self._dml.run(task, tree)
            elif isinstance(tree, ddl.STATEMENTS):
                self._ddl.run(task, tree)
            else:
                raise not_implemented(f"The statement {tree.key.upper()}")
        except (duckdb.InterruptException, duckdb.OutOfMemoryException, duckdb.IOException):
            raise  # not the statement's fault
        except duckdb.Error as error:
            raise query_error(error) from error

    def _select(self, task: Task, tree: exp.Expr) -> None:
        configuration = task.configuration["query"]
        name_columns(tree)
        with (
            task.database.staging() as store,
            task.database.cursor() as cursor,
            task.cancellable(cursor),
        ):
            cursor.begin()
            plan = self._binder.bind(tree, cursor, default_dataset(configuration, task.project))
            fields = self._binder.fields(plan)
            report(task, plan, "SELECT", schema={"fields": to_json(fields)})
            check_limit(configuration, plan)
            if task.dry_run:
                cursor.rollback()
                return
            cursor.execute(self._binder.create_sql(store, plan, fields))
            cursor.commit()
            self._deliver(task, store, fields)

    def _deliver(self, task: Task, store: str, fields: Fields) -> None:
        configuration = task.configuration["query"]
        if configuration.get("destinationTable"):
            write = Write.of(configuration, project=task.project, disposition=EMPTY)
            with task.writing() as connection:
                write.apply(connection, task.catalog, store, fields, task.now())
            return
        table = TableId(project=task.project, dataset=ANONYMOUS, name=f"anon{uuid.uuid4().hex}")
        task.configure("query", destinationTable=table.reference, writeDisposition="WRITE_TRUNCATE")
        body = {
            "schema": {"fields": to_json(fields)},
            "expirationTime": str(millis(task.now() + _RESULT_LIFE)),
        }
        with task.writing() as connection:
            if task.catalog.find_dataset(connection, task.project, ANONYMOUS) is None:
                dataset = {"datasetReference": {"datasetId": ANONYMOUS}}
                task.catalog.create_dataset(connection, task.project, dataset, task.now())
            task.catalog.create_table(connection, table, body, task.now(), store=store)
