"""The work of a run of tables, and the messages from its threads to the thread of the step."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

from gardener_api.audit_rules import AuditRules
from gardener_api.config import Source
from gardener_api.store.store import JobStore
from gardener_dagster.planning.audits import Verdict
from gardener_dagster.resources import GCSResource, WarehouseResource


@dataclass(frozen=True, kw_only=True)
class Made:
    """A partition was made by this run, or earlier.

    Attributes:
        key: Asset key of the table.
        date: The partition.
        metadata: Metadata of its materialization.
        before: Whether it was made earlier.
    """

    key: dg.AssetKey
    date: dt.date
    metadata: Mapping[str, Any]
    before: bool = False


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The verdicts of a partition's checks, by name of the check."""

    key: dg.AssetKey
    date: dt.date
    found: Mapping[str, Verdict]


@dataclass(frozen=True, kw_only=True)
class Operated:
    """An operation on a table of a date succeeded."""

    date: dt.date
    text: str


@dataclass(frozen=True, kw_only=True)
class Note:
    """A message for the run's log."""

    text: str
    warns: bool = False


Message = Made | Checked | Operated | Note


@dataclass(frozen=True, kw_only=True)
class TablesWork:
    """The work of a run of tables: the same for all its dates.

    Attributes:
        source: Source of the tables.
        annotations: Source of the annotations; ``None`` if nothing is joined.
        selected: Asset keys of the tables to make.
        run_id: The Dagster run.
        requester: Requester of the run: see ``requesters.find_requester``.
        may_empty: Whether a partition may lose all its rows.
        rules: Audit rules of the source.
        accept: Audits whose findings do not hold partitions in this run.
        decision: Number of the held partition whose decision the run carries out; the run does
            nothing else. ``None``: the run carries out no decision.
        store: The job store.
        warehouse: BigQuery.
        gcs: Cloud Storage.
    """

    source: Source
    annotations: Source | None
    selected: frozenset[dg.AssetKey]
    run_id: str
    requester: str
    may_empty: bool
    rules: AuditRules
    accept: frozenset[str]
    decision: int | None
    store: JobStore
    warehouse: WarehouseResource
    gcs: GCSResource
