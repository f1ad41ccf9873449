"""Statements bound to tables: what they read, and what that costs.

Bytes processed are, for each table, the logical bytes of the columns that the statement uses, in
the partitions that its filters leave (``partitions`` says how they are counted). A partition filter
itself reads nothing. DML reads all columns of what it changes. Billed is that in whole MiB, at
least 10 for each table: https://cloud.google.com/bigquery/pricing#on_demand_pricing.
"""

# ruff: noqa: S608 - this package quotes its identifiers and literals

from collections.abc import Sequence
from dataclasses import dataclass

from sqlglot import exp

from gardener_dagster.local.bigquery import scans
from gardener_dagster.local.bigquery.catalog import Catalog
from gardener_dagster.local.bigquery.database import Connection
from gardener_dagster.local.bigquery.errors import BigQueryError
from gardener_dagster.local.bigquery.partitions import bytes_read
from gardener_dagster.local.bigquery.planner import Planner
from gardener_dagster.local.bigquery.scans import Scan
from gardener_dagster.local.bigquery.schema import Fields, quoted
from gardener_dagster.local.bigquery.tables import Resource, TableId
from gardener_dagster.local.bigquery.task import Task
from gardener_dagster.local.bigquery.translate import duckdb_sql

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

    tree: exp.Expr
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
        tree: exp.Expr,
        connection: Connection,
        default: TableId,
        *,
        target: exp.Table | None = None,
    ) -> Plan:
        """Finds a statement's tables, checks its partition filters, and counts what it reads.

        Args:
            tree: the statement; it is changed.
            connection: in whose transaction it is going to run.
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
        processed = sum(
            bytes_read(connection, table, partitions[store], columns.get(store, set()))
            for store, table in tables.items()
        )
        billed = -(-processed // _MEBIBYTE) * _MEBIBYTE
        if processed:
            billed = max(billed, _LEAST_BILLED * len(tables))
        return Plan(
            tree=tree, scans=found, partitions=partitions, processed=processed, billed=billed
        )

    def _columns(self, tree: exp.Expr, found: Sequence[Scan]) -> dict[str, set[str]]:
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

    @staticmethod
    def create_sql(store: str, plan: Plan, fields: Fields) -> str:
        """DuckDB's CREATE TABLE of a query's result, in BigQuery's types."""
        columns = ", ".join(
            f"CAST({quoted(field.name)} AS {field.duckdb_type}) AS {quoted(field.name)}"
            for field in fields
        )
        return f"CREATE TABLE {store} AS SELECT {columns} FROM ({duckdb_sql(plan.tree)})"


def default_dataset(configuration: Resource, project: str) -> TableId:
    """Where tables are that name no project or dataset."""
    default = configuration.get("defaultDataset") or {}
    return TableId(
        project=default.get("projectId") or project, dataset=default.get("datasetId", ""), name=""
    )


def report(task: Task, plan: Plan, kind: str, **query: object) -> None:
    """Puts a statement's costs into the job's statistics."""
    names = dict.fromkeys(str(scan.table.id) for scan in plan.scans)
    tables = {str(scan.table.id): scan.table.id.reference for scan in plan.scans}
    task.record(
        totalBytesProcessed=str(plan.processed),
        query={
            "statementType": kind,
            "totalBytesProcessed": str(plan.processed),
            "totalBytesBilled": "0" if task.dry_run else str(plan.billed),
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
