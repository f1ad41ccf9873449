"""Query jobs: SELECT. Other statements are in ``statements``.

https://cloud.google.com/bigquery/docs/reference/rest/v2/Job#JobConfigurationQuery. The result goes
into the destination that the job names, or into a table that nobody else sees, for a day.

Bytes processed are, for each table, the logical bytes of the columns that the query uses, in the
partitions that its filters leave (``partitions`` says how they are counted). A partition filter
itself reads nothing. Billed is that in whole MiB, at least 10 for each table:
https://cloud.google.com/bigquery/pricing#on_demand_pricing. Slot time is the time that the query
took.
"""

import datetime as dt
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
from sqlglot import exp

from gardener_dagster.local.bigquery import scans
from gardener_dagster.local.bigquery.catalog import Catalog, TableId, millis
from gardener_dagster.local.bigquery.database import Connection, Database
from gardener_dagster.local.bigquery.errors import BigQueryError, invalid, not_implemented
from gardener_dagster.local.bigquery.functions import install
from gardener_dagster.local.bigquery.jobs import Task
from gardener_dagster.local.bigquery.parameters import fill_in
from gardener_dagster.local.bigquery.partitions import partitions_of
from gardener_dagster.local.bigquery.planner import Planner, query_error
from gardener_dagster.local.bigquery.scans import Scan
from gardener_dagster.local.bigquery.schema import Fields, quoted, to_json
from gardener_dagster.local.bigquery.translate import adapt, duckdb_sql, name_columns, parse
from gardener_dagster.local.bigquery.writes import EMPTY, Write

Resource = dict[str, Any]

ANONYMOUS = "_anonymous"
"""The dataset of results without a destination."""

_RESULT_LIFE = dt.timedelta(days=1)
_MEBIBYTE = 2**20
_LEAST_BILLED = 10 * _MEBIBYTE


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A statement bound to the tables as they are.

    Attributes:
        tree: the statement, naming DuckDB's tables.
        partitions: those read, by DuckDB table.
        processed: bytes.
        billed: bytes.
    """

    tree: exp.Expression
    scans: Sequence[Scan]
    partitions: dict[str, set[str]]
    processed: int
    billed: int


class Binder:
    """Makes plans.

    Args:
        catalog: of the tables.
        planner: knows what a query reads.
    """

    def __init__(self, catalog: Catalog, planner: Planner) -> None:
        self._catalog, self._planner = catalog, planner

    def bind(
        self,
        tree: exp.Expression,
        connection: Connection,
        default: TableId,
        *,
        target: exp.Table | None = None,
    ) -> Plan:
        """Finds a statement's tables, checks its partition filters, and counts what it reads.

        Args:
            tree: the statement; it is changed.
            connection: in whose transaction it is going to run.
            catalog: of the tables.
            default: project and dataset of tables that name none.
            target: the table that the statement changes, all of whose columns it reads.

        Raises:
            BigQueryError: the statement is wrong, or reads what must not be read.
        """
        found = scans.bind(tree, connection, self._catalog, default)
        for scan in found:
            scans.find_filters(scan)
            scans.check_filter(scan)
        partitions: dict[str, set[str]] = {}
        for scan in found:
            conditions = [duckdb_sql(scans.unqualified(one)) for one in scan.filters]
            joined = " AND ".join(f"({one})" for one in conditions) or "TRUE"
            read = scans.partitions_read(scan, connection, joined)
            partitions.setdefault(scan.table.store, set()).update(read)
        columns = self._columns(tree, found)
        for scan in found:
            if scan.node is target:
                columns[scan.table.store] = {field.name for field in scan.table.fields}
        tables = {scan.table.store: scan.table for scan in found}
        sizes = [
            part.size_of(columns.get(store, set()))
            for store, table in tables.items()
            for part in partitions_of(connection, table)
            if part.id in partitions[store]
        ]
        processed = sum(sizes)
        billed = -(-processed // _MEBIBYTE) * _MEBIBYTE
        if processed:
            billed = max(billed, _LEAST_BILLED * len(tables))
        return Plan(
            tree=tree, scans=found, partitions=partitions, processed=processed, billed=billed
        )

    def _columns(self, tree: exp.Expression, found: Sequence[Scan]) -> dict[str, set[str]]:
        """The columns that are used, other than by the partition filters."""
        filters = [one for scan in found for one in scan.filters if one.parent is not None]
        held = [(one, exp.true()) for one in dict.fromkeys(filters)]
        for one, stand_in in held:
            one.replace(stand_in)
        try:
            sql = duckdb_sql(tree)
        finally:
            for one, stand_in in held:
                stand_in.replace(one)
        return dict(self._planner.columns(sql, [scan.table for scan in found]))

    def fields(self, plan: Plan) -> Fields:
        """The schema of a query's result.

        Raises:
            BigQueryError: the query is wrong.
        """
        return self._planner.fields(duckdb_sql(plan.tree), [s.table for s in plan.scans])


class QueryWork:
    """What query jobs do.

    Args:
        database: of the rows.
        catalog: of the tables.
    """

    def __init__(self, database: Database, catalog: Catalog) -> None:
        from gardener_dagster.local.bigquery.statements import Statements

        self._database = database
        self._planner = Planner()
        with database.cursor() as cursor:
            install(cursor)
        self._binder = Binder(catalog, self._planner)
        self._statements = Statements(self._binder)

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
        if any(one.name.upper() == "FARM_FINGERPRINT" for one in tree.find_all(exp.Anonymous)) or (
            tree.find(exp.FarmFingerprint)
        ):
            self._install_fingerprint()
        tree = adapt(tree, task.now())
        started = time.monotonic()
        try:
            if isinstance(tree, exp.Query):
                self._select(task, tree)
            else:
                self._statements.run(task, tree)
        except duckdb.InterruptException:
            raise
        except (duckdb.OutOfMemoryException, duckdb.IOException):
            raise
        except duckdb.Error as error:
            raise query_error(error) from error
        finally:
            taken = max(1, round((time.monotonic() - started) * 1000))
            task.record(totalSlotMs=str(taken))

    def _install_fingerprint(self) -> None:
        with self._database.cursor() as cursor:
            install(cursor, fingerprint=True)
        self._planner.install_fingerprint()

    def _select(self, task: Task, tree: exp.Expression) -> None:
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
            columns = ", ".join(
                f"CAST({quoted(field.name)} AS {field.duckdb_type}) AS {quoted(field.name)}"
                for field in fields
            )
            cursor.execute(
                f"CREATE TABLE {store} AS SELECT {columns} FROM ({duckdb_sql(plan.tree)})"
            )
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
        task.configure(
            "query", destinationTable=table.reference, writeDisposition="WRITE_TRUNCATE"
        )
        body = {
            "schema": {"fields": to_json(fields)},
            "expirationTime": str(millis(task.now() + _RESULT_LIFE)),
        }
        with task.writing() as connection:
            if task.catalog.find_dataset(connection, task.project, ANONYMOUS) is None:
                dataset = {"datasetReference": {"datasetId": ANONYMOUS}}
                task.catalog.create_dataset(connection, task.project, dataset, task.now())
            task.catalog.create_table(connection, table, body, task.now(), store=store)


def default_dataset(configuration: Resource, project: str) -> TableId:
    """Where tables are that name no project or dataset."""
    default = configuration.get("defaultDataset") or {}
    return TableId(
        project=default.get("projectId") or project, dataset=default.get("datasetId", ""), name=""
    )


def report(task: Task, plan: Plan, kind: str, **query: Any) -> None:
    """Puts a statement's costs into the job's statistics."""
    names = dict.fromkeys(str(scan.table.id) for scan in plan.scans)
    tables = {str(scan.table.id): scan.table.id.reference for scan in plan.scans}
    task.record(
        totalBytesProcessed=str(plan.processed),
        query={
            "statementType": kind,
            "totalBytesProcessed": str(plan.processed),
            "totalBytesBilled": "0" if task.dry_run else str(plan.billed),
            "totalSlotMs": "0",
            "cacheHit": False,
            "referencedTables": [tables[name] for name in names],
            "totalPartitionsProcessed": str(sum(len(ids) for ids in plan.partitions.values())),
        }
        | query,
    )


def check_limit(configuration: Resource, plan: Plan) -> None:
    """Refuses what would cost more than the job allows.

    https://cloud.google.com/bigquery/docs/best-practices-costs#limit_query_costs_by_restricting_the_number_of_bytes_billed

    Raises:
        BigQueryError: it would.
    """
    limit = configuration.get("maximumBytesBilled")
    if limit and plan.billed > int(limit):
        raise BigQueryError(
            "bytesBilledLimitExceeded",
            f"Query exceeded limit for bytes billed: {int(limit)}. {plan.billed} or higher"
            " required.",
        )
