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
    """A partition is made, or was made before by a run of the same requester.

    Attributes:
        key: The table's.
        date: The partition.
        metadata: For its materialization.
        before: Whether it was made before.
    """

    key: dg.AssetKey
    date: dt.date
    metadata: Mapping[str, Any]
    before: bool = False


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What the checks of a partition found, by the checks' names."""

    key: dg.AssetKey
    date: dt.date
    found: Mapping[str, Verdict]


@dataclass(frozen=True, kw_only=True)
class Operated:
    """An operation on a table of a date has ended well."""

    date: dt.date
    text: str


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something for the run's log."""

    text: str
    warns: bool = False


Message = Made | Checked | Operated | Note


@dataclass(frozen=True, kw_only=True)
class TablesWork:
    """What a run makes of the tables of a source; the same for all its dates.

    Attributes:
        source: Whose tables.
        annotations: What its rows are joined with; ``None`` where nothing is joined.
        selected: The tables to make.
        run_id: The Dagster run.
        requester: Who asked for the run: see ``requesters.find_requester``.
        may_empty: A partition may lose all its rows.
        rules: Of the source's audits.
        accept: Audits that hold nothing in this run.
        decision: Number of the held partition; the run carries out a person's decision about it,
            and does nothing else. ``None``: it is another run.
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
