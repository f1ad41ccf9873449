"""Create datasets and tables, add columns, delete partitions. Writes no rows."""

import datetime as dt
import logging
from collections.abc import Sequence

from google.api_core.exceptions import PreconditionFailed
from google.cloud import bigquery

from gardener_dagster.warehouse.engine import Engine
from gardener_dagster.warehouse.errors import BigQueryFailure
from gardener_dagster.warehouse.names import Partition, Step
from gardener_dagster.warehouse.table_schemas import Field, merge

_log = logging.getLogger(__name__)

_UPDATE_TRIES = 10


class Tables:
    """The tables of one project, through an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._client = engine.client

    def get(self, step: Step, table_id: str) -> bigquery.Table | None:
        """Return the table, or None if it or its dataset is missing."""
        reference = self._engine.reference(table_id)
        try:
            return self._engine.call(
                step, lambda options: self._client.get_table(reference, **options), table=table_id
            )
        except BigQueryFailure as error:
            if error.failure.code == 404:
                return None
            raise

    def schema(self, step: Step, table_id: str) -> list[Field]:
        """Return the table's columns; none if it is missing."""
        table = self.get(step, table_id)
        return fields_of(table) if table else []

    def ensure(self, step: Step, table_id: str, schema: Sequence[Field]) -> list[Field]:
        """Create the table and its dataset if they are missing; else add the columns it lacks.

        The table is partitioned by day on `date`, and BigQuery refuses a query without a filter on
        `date`.

        Returns:
            All its columns.
        """
        table = self.get(step, table_id) or self._create(step, table_id, schema)
        merged, added = merge(fields_of(table), schema)
        if added:
            self.add_fields(step, table_id, schema)
        return merged

    def _create(self, step: Step, table_id: str, schema: Sequence[Field]) -> bigquery.Table:
        reference = self._engine.reference(table_id)
        dataset = bigquery.Dataset(
            bigquery.DatasetReference(reference.project, reference.dataset_id)
        )
        dataset.location = self._engine.location
        table = bigquery.Table(
            reference, schema=[bigquery.SchemaField.from_api_repr(f) for f in schema]
        )
        table.time_partitioning = bigquery.TimePartitioning(
            type_=bigquery.TimePartitioningType.DAY, field="date"
        )
        table.require_partition_filter = True
        change, client = self._engine.change, self._client
        change(
            step,
            lambda options: client.create_dataset(dataset, exists_ok=True, **options),
            table=table_id,
        )
        made = change(
            step,
            lambda options: client.create_table(table, exists_ok=True, **options),
            table=table_id,
        )
        _log.info("made table %s", table_id)
        return made

    def add_fields(self, step: Step, table_id: str, schema: Sequence[Field]) -> tuple[str, ...]:
        """Add the columns that an existing table lacks.

        If it lacks none, no request is sent: BigQuery allows 5 metadata updates per table in 10 s.

        Returns:
            The added fields, as `path TYPE`.
        """
        for tries in range(_UPDATE_TRIES):
            table = self.get(step, table_id)
            if table is None:
                return ()
            merged, added = merge(fields_of(table), schema)
            if not added:
                return ()
            table.schema = [bigquery.SchemaField.from_api_repr(field) for field in merged]
            try:
                self._update(step, table, ["schema"])
            except BigQueryFailure as error:
                # The table was changed after it was read: read it again.
                if error.failure.code != PreconditionFailed.code or tries == _UPDATE_TRIES - 1:
                    raise
                continue
            _log.info("added to %s: %s", table_id, ", ".join(added))
            return added
        raise AssertionError("the last try returns or raises")

    def _update(self, step: Step, table: bigquery.Table, properties: list[str]) -> None:
        self._engine.change(
            step,
            lambda options: self._client.update_table(table, properties, **options),
            table=str(table),
        )

    def make_scratch(
        self, step: Step, table_id: str, schema: Sequence[Field], *, expires: dt.datetime
    ) -> None:
        """Create an unpartitioned scratch table; BigQuery deletes it when it expires."""
        table = bigquery.Table(
            self._engine.reference(table_id),
            schema=[bigquery.SchemaField.from_api_repr(f) for f in schema],
        )
        table.expires = expires
        self._engine.change(
            step,
            lambda options: self._client.create_table(table, exists_ok=True, **options),
            table=table_id,
        )

    def delete(self, step: Step, table_id: str) -> bool:
        """Delete a table or, with a `$YYYYMMDD`, a partition; a missing one is no error.

        Returns:
            Whether it existed.
        """
        reference = self._engine.reference(table_id)
        try:
            self._engine.change(
                step,
                lambda options: self._client.delete_table(reference, **options),
                table=table_id,
            )
        except BigQueryFailure as error:
            if error.failure.code == 404:
                return False
            raise
        return True

    def delete_partition(self, step: Step, partition: Partition) -> bool:
        """Delete a partition; a missing one is no error.

        Returns:
            Whether it existed, as reported by BigQuery.
        """
        return self.delete(step, partition.id)


def fields_of(table: bigquery.Table) -> list[Field]:
    """Return the table's columns in BigQuery's own JSON."""
    return [field.to_api_repr() for field in table.schema]
