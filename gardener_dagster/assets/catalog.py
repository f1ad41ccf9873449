"""What Dagster's catalog says of an asset before any date of it was made: columns, SQL, links.

The steps make the metadata of a date's materialization. This module makes no requests: it reads
only the configuration and the package's files, because every run loads the definitions anew.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from gardener_api.config import Source
from gardener_api.links import Links
from gardener_dagster.warehouse.names import quoted_table
from gardener_dagster.warehouse.queries import key_parts, query
from gardener_dagster.warehouse.table_schemas import Field, is_known, joined_schema, schema_of


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """Makes the metadata and descriptions of assets.

    Attributes:
        project: Google Cloud project of the tables.
        parsed_bucket: The bucket that the parsers write to.
        links: Makes links to Google's console and the status page, as far as their URLs are known.
    """

    project: str
    parsed_bucket: str
    links: Links = field(default_factory=Links)

    def parsed(self, source: Source) -> dict[str, Any]:
        """Return the metadata of a source's ``parsed`` asset."""
        folder = f"{source.experiment}/{source.datatype}/"
        return _urls(
            {
                "archives": self.links.archives(source.bucket, folder),
                "parsed objects": self.links.archives(
                    self.parsed_bucket, f"{source.bucket}/{folder}"
                ),
                "jobs": self.links.jobs(source.experiment, source.datatype),
            }
        )

    def table(self, source: Source, table_id: str) -> dict[str, Any]:
        """Return the metadata of a tmp or raw table, which has the parser's columns.

        Args:
            source: Source of the table.
            table_id: ``<dataset>.<table>``.
        """
        known = is_known(source.datatype)
        return self._table(source, table_id, schema_of(source.datatype) if known else ())

    def joined(self, source: Source, annotations: Source, table_id: str) -> dict[str, Any]:
        """Return the metadata of a joined table.

        Args:
            source: Source of the table.
            annotations: Source of the annotations that its rows are joined with.
            table_id: ``<dataset>.<table>``.
        """
        names = (annotations.datatype, source.datatype)
        known = all(map(is_known, names))
        schema = joined_schema(*map(schema_of, names)) if known else ()
        return self._table(source, table_id, schema)

    def dedup_sql(self, source: Source) -> str:
        """Return the deduplication query as Markdown, for an asset's description."""
        parts = key_parts(source.dedup_key)
        table = quoted_table(self.project, source.tmp_table)
        return _code(query("dedup", table=table, key=parts["key"], keyless=parts["keyless"]))

    def join_sql(self, source: Source, annotations: Source) -> str:
        """Return the join query as Markdown, for an asset's description."""
        raw, other = (quoted_table(self.project, s.raw_table) for s in (source, annotations))
        return _code(query("join", annotations=other, raw=raw))

    def _table(self, source: Source, table_id: str, schema: Sequence[Field]) -> dict[str, Any]:
        facts: dict[str, Any] = {"dagster/table_name": f"{self.project}.{table_id}"}
        if schema:
            facts["dagster/column_schema"] = dg.TableSchema(list(_columns(schema)))
        links = {
            "table": self.links.table(table_id),
            "jobs": self.links.jobs(source.experiment, source.datatype),
        }
        return facts | _urls(links)


def _columns(schema: Sequence[Field], prefix: str = "") -> Iterator[dg.TableColumn]:
    """Yield all fields, named by their dotted paths; the fields of a record follow the record."""
    for each in schema:
        path, kind = prefix + each["name"], each["type"]
        yield dg.TableColumn(
            name=path,
            type=f"ARRAY<{kind}>" if each.get("mode") == "REPEATED" else kind,
            description=each.get("description"),
            constraints=dg.TableColumnConstraints(nullable=each.get("mode") != "REQUIRED"),
        )
        yield from _columns(each.get("fields", ()), f"{path}.")


def _urls(links: dict[str, str | None]) -> dict[str, Any]:
    return {name: dg.MetadataValue.url(url) for name, url in links.items() if url}


def _code(sql: str) -> str:
    return f"\n\n```sql\n{sql}\n```"
