"""Copy jobs: tables or partitions into a table or a partition.

https://cloud.google.com/bigquery/docs/managing-tables#copy-table
"""

# ruff: noqa: S608 - this package quotes its identifiers and literals

from gardener_dagster.local.bigquery.database import Connection
from gardener_dagster.local.bigquery.errors import invalid, not_found, not_implemented
from gardener_dagster.local.bigquery.partitions import content
from gardener_dagster.local.bigquery.schema import Fields, only_in, quoted
from gardener_dagster.local.bigquery.tables import Resource, Table, TableId
from gardener_dagster.local.bigquery.task import Task
from gardener_dagster.local.bigquery.writes import EMPTY, Write


class CopyWork:
    """What copy jobs do."""

    def check(self, configuration: Resource, project: str) -> None:
        """Refuses what can be no copy.

        Raises:
            BigQueryError: no sources, or another operation than COPY.
        """
        Write.of(configuration, project=project, disposition=EMPTY)
        operation = configuration.get("operationType") or "COPY"
        if operation not in ("COPY", "OPERATION_TYPE_UNSPECIFIED"):
            raise not_implemented(f"A copy job with operationType {operation}")
        _sources(configuration, project)

    def run(self, task: Task) -> None:
        """Copies.

        Raises:
            BigQueryError: a source is missing, or the destination refuses the rows.
        """
        configuration = task.configuration["copy"]
        write = Write.of(configuration, project=task.project, disposition=EMPTY)
        sources = _sources(configuration, task.project)
        if task.dry_run:
            return
        with task.database.staging() as store:
            with task.database.cursor() as cursor, task.cancellable(cursor):
                cursor.begin()
                tables = [_found(task, cursor, source) for source in sources]
                fields = _common_fields(tables)
                columns = ", ".join(quoted(field.name) for field in fields)
                selects = [
                    f"SELECT {columns} FROM {table.store} WHERE {table.where(source.partition)}"
                    for table, source in zip(tables, sources, strict=True)
                ]
                [rows] = cursor.execute(
                    f"CREATE TABLE {store} AS {' UNION ALL BY NAME '.join(selects)}"
                ).fetchone() or (0,)
                size = sum(
                    content(cursor, table, source.partition).bytes
                    for table, source in zip(tables, sources, strict=True)
                )
                cursor.commit()
            with task.writing() as connection:
                made = Write(
                    destination=write.destination,
                    disposition=write.disposition,
                    create=write.create,
                    properties=_properties(tables[0], sources[0], write.destination),
                )
                made.apply(connection, task.catalog, store, fields, task.now())
                task.record(copy={"copiedRows": str(rows), "copiedLogicalBytes": str(size)})


def _sources(configuration: Resource, project: str) -> list[TableId]:
    references = configuration.get("sourceTables") or [configuration.get("sourceTable") or {}]
    return [TableId.of(reference, project=project) for reference in references]


def _found(task: Task, connection: Connection, source: TableId) -> Table:
    table = task.catalog.table(connection, source)
    table.where(source.partition)  # refuses what is no partition
    if source.partition and not content(connection, table, source.partition).partitions:
        raise not_found("Table", source)
    return table


def _common_fields(tables: list[Table]) -> Fields:
    first = tables[0]
    for other in tables[1:]:
        differs = only_in(other.fields, first.fields) or only_in(first.fields, other.fields)
        if differs:
            raise invalid(
                f"Source tables have different schemas: {first.id} and {other.id} differ in"
                f" {differs[0]}"
            )
    return first.fields


def _properties(table: Table, source: TableId, destination: TableId) -> Resource:
    """Of a table that the copy makes: it is partitioned like its source."""
    kept = ["description", "labels", "clustering"]
    if not source.partition or destination.partition:
        kept += ["timePartitioning", "requirePartitionFilter"]
    return {key: table.resource[key] for key in kept if key in table.resource}
