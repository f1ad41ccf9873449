"""Copy jobs: a table or partition replaces another one.

https://cloud.google.com/bigquery/docs/managing-tables#copy-table
"""

# ruff: noqa: S608 - this package quotes its identifiers and literals

from gardener_dagster.local.bigquery.catalog.partitions import content
from gardener_dagster.local.bigquery.catalog.schema import quoted
from gardener_dagster.local.bigquery.catalog.table import Resource, TableId
from gardener_dagster.local.bigquery.catalog.writes import Write
from gardener_dagster.local.bigquery.errors import not_found, not_implemented
from gardener_dagster.local.bigquery.jobs.task import Task


class CopyWork:
    """The implementation of copy jobs."""

    def check(self, configuration: Resource, project: str) -> None:
        """Refuse an invalid job: see `Work.check`.

        Raises:
            BigQueryError: the source is missing, or an option is not supported.
        """
        Write.of(configuration, project=project)
        operation = configuration.get("operationType") or "COPY"
        if operation not in ("COPY", "OPERATION_TYPE_UNSPECIFIED"):
            raise not_implemented(f"a copy job with the operationType {operation}")
        _source(configuration, project)

    def run(self, task: Task) -> None:
        """Copy the rows.

        Raises:
            BigQueryError: the source does not exist, or the rows do not fit the destination.
        """
        configuration = task.configuration["copy"]
        write = Write.of(configuration, project=task.project)
        source = _source(configuration, task.project)
        with task.database.staging() as store:
            with task.database.cursor() as cursor, task.cancellable(cursor):
                cursor.begin()
                table = task.catalog.table(cursor, source)
                condition = table.where(source.partition)
                found = content(cursor, table, source.partition)
                if source.partition and not found.partitions:
                    raise not_found("Table", source)
                columns = ", ".join(quoted(field.name) for field in table.fields)
                cursor.execute(
                    f"CREATE TABLE {store} AS SELECT {columns} FROM {table.store} WHERE {condition}"
                )
                cursor.commit()
            with task.writing() as connection:
                write.apply(connection, task.catalog, store, table.fields, task.now())
                task.record(copy={"copiedRows": str(found.rows)})


def _source(configuration: Resource, project: str) -> TableId:
    sources = configuration.get("sourceTables") or [configuration.get("sourceTable") or {}]
    if len(sources) > 1:
        raise not_implemented("a copy job with several sources")
    return TableId.of(sources[0], project=project)
