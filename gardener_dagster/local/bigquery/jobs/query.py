"""Query jobs: a SELECT whose result goes into a partition, or into an anonymous table for a day.

https://cloud.google.com/bigquery/docs/reference/rest/v2/Job#JobConfigurationQuery
"""

import datetime as dt
import uuid

import duckdb
from sqlglot import exp

from gardener_dagster.local.bigquery.catalog.schema import Fields, to_json
from gardener_dagster.local.bigquery.catalog.table import Resource, TableId, millis
from gardener_dagster.local.bigquery.catalog.writes import Write
from gardener_dagster.local.bigquery.errors import BigQueryError, not_implemented
from gardener_dagster.local.bigquery.jobs.task import Task
from gardener_dagster.local.bigquery.sql.parameters import fill_in
from gardener_dagster.local.bigquery.sql.plan import Plan, make_plan, query_error
from gardener_dagster.local.bigquery.sql.translate import adapt, name_columns, parse

_ANONYMOUS = "_anonymous"
"""Dataset of the results of queries without a destination table."""

_RESULT_LIFE = dt.timedelta(days=1)


class QueryWork:
    """The implementation of query jobs."""

    def check(self, configuration: Resource, project: str) -> None:
        """Refuse an invalid job: see `Work.check`.

        Raises:
            BigQueryError: there is no query, or an option is not supported.
        """
        if not configuration.get("query"):
            raise BigQueryError("required", "Required parameter is missing: query")
        if configuration.get("useLegacySql"):
            raise not_implemented("legacy SQL")
        if configuration.get("destinationTable"):
            Write.of(configuration, project=project)

    def run(self, task: Task) -> None:
        """Run the query.

        Raises:
            BigQueryError: the query is invalid or not supported, reads too many bytes, or its
                result does not fit the destination.
        """
        configuration = task.configuration["query"]
        tree = parse(configuration["query"])
        fill_in(tree, configuration.get("queryParameters") or ())
        adapt(tree, task.now())
        name_columns(tree)
        with task.database.staging() as store:
            try:
                plan = self._execute(task, tree, store)
            except (duckdb.InterruptException, duckdb.OutOfMemoryException, duckdb.IOException):
                raise  # not an error of the query
            except duckdb.Error as error:
                raise query_error(error) from error
            self._deliver(task, store, plan.fields)

    @staticmethod
    def _execute(task: Task, tree: exp.Expr, store: str) -> Plan:
        """Run the query, and write its result to a staging table."""
        configuration = task.configuration["query"]
        default = configuration.get("defaultDataset") or {}
        default_dataset = TableId(
            project=default.get("projectId") or task.project,
            dataset=default.get("datasetId", ""),
            name="",
        )
        with task.database.cursor() as cursor, task.cancellable(cursor):
            cursor.begin()
            plan = make_plan(tree, cursor, task.catalog, default_dataset)
            _report(task, plan)
            limit = configuration.get("maximumBytesBilled")
            if limit and plan.bytes > int(limit):
                raise BigQueryError(
                    "bytesBilledLimitExceeded",
                    f"Query exceeded limit for bytes billed: {int(limit)}. {plan.bytes} or higher"
                    " required.",
                )
            cursor.execute(plan.create_sql(store))
            cursor.commit()
        return plan

    @staticmethod
    def _deliver(task: Task, store: str, fields: Fields) -> None:
        """Write the result to the job's destination, or to an anonymous table if it has none."""
        configuration = task.configuration["query"]
        if configuration.get("destinationTable"):
            write = Write.of(configuration, project=task.project)
            with task.writing() as connection:
                write.apply(connection, task.catalog, store, fields, task.now())
            return
        table = TableId(project=task.project, dataset=_ANONYMOUS, name=f"anon{uuid.uuid4().hex}")
        task.configure("query", destinationTable=table.reference, writeDisposition="WRITE_TRUNCATE")
        body = {
            "schema": {"fields": to_json(fields)},
            "expirationTime": str(millis(task.now() + _RESULT_LIFE)),
        }
        with task.writing() as connection:
            if task.catalog.find_dataset(connection, task.project, _ANONYMOUS) is None:
                dataset = {"datasetReference": {"datasetId": _ANONYMOUS}}
                task.catalog.create_dataset(connection, task.project, dataset, task.now())
            task.catalog.create_table(connection, table, body, task.now(), store=store)


def _report(task: Task, plan: Plan) -> None:
    task.record(
        totalBytesProcessed=str(plan.bytes),
        query={
            "statementType": "SELECT",
            "totalBytesProcessed": str(plan.bytes),
            "totalBytesBilled": str(plan.bytes),
            "cacheHit": False,
            "referencedTables": plan.tables,
            "totalPartitionsProcessed": str(plan.partitions),
        },
    )
