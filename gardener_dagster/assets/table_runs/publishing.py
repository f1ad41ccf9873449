"""Audits a date's rows before they are published; holds them, or records what publishing changed.

``planning`` computes the verdicts and decides whether they hold the rows; ``date_tables`` calls the
audits between its operations.
"""

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from gardener_api.jobs.job import JobKey
from gardener_api.store.publishing.changes import PartitionChange
from gardener_api.store.publishing.held import Decision, HeldPartition, Outcome
from gardener_api.store.tables.table_versions import JoinInputs, PartitionRecord
from gardener_dagster.assets import checks
from gardener_dagster.assets.keys import ACCEPT_TAG, joined_key, raw_key, source_tables
from gardener_dagster.assets.table_runs.date_listing import DateListing
from gardener_dagster.assets.table_runs.locking import utc_now
from gardener_dagster.assets.table_runs.work import Checked, Message, Note, TablesWork
from gardener_dagster.planning import audits
from gardener_dagster.planning.publication import held_reason, judge
from gardener_dagster.warehouse.names import JobContext
from gardener_dagster.warehouse.results import CopyResult, KeyComparison, Origin

_WEEK = 7


class Held(RuntimeError):
    """Audits hold the partition: it is not published until a person decides."""


class DecisionVoid(RuntimeError):
    """The rows that a person decided about no longer exist."""


@dataclass(frozen=True, kw_only=True)
class RawAudit:
    """The audit of rows that may be published in raw, or already are.

    Attributes:
        keys: Keys of the rows, compared with those of the version before.
        origins: Archives and parser versions of the rows.
        verdicts: Verdicts of the audits, by name.
    """

    keys: KeyComparison
    origins: Sequence[Origin]
    verdicts: Mapping[str, audits.Verdict]


@dataclass(frozen=True, kw_only=True)
class JoinAudit:
    """The audit of a join whose result may be published.

    Attributes:
        annotated: Number of rows that have an annotation.
        verdicts: Verdicts of the audits, by name.
    """

    annotated: int
    verdicts: Mapping[str, audits.Verdict]


def staged_rows(tmp: PartitionRecord | None) -> str:
    """Return an identifier of the rows of a tmp partition, for decisions about them."""
    return f"load {tmp.version} of parse {tmp.job or 0}" if tmp else "load 0"


def staged_join(inputs: JoinInputs) -> str:
    """Return an identifier of the rows that a join would publish, for decisions about them."""
    before = inputs.annotations_before
    return f"raw {inputs.raw}, annotations {inputs.annotations}, {before} of the day before"


@dataclass(frozen=True, kw_only=True)
class Publisher:
    """Makes the audits of one date, and records what was held or published.

    Attributes:
        work: The work of the run.
        date: The date.
        key: Key of the date's parse job.
        context: Returns the context of BigQuery jobs.
        tell: Sends a message to the thread that runs the step.
    """

    work: TablesWork
    date: dt.date
    key: JobKey
    context: Callable[[], JobContext]
    tell: Callable[[Message], None]

    # -- raw

    def audit_raw(
        self,
        listing: DateListing,
        tmp: PartitionRecord | None,
        keys: KeyComparison,
        *,
        job: int | None,
    ) -> RawAudit | None:
        """Audit the rows in tmp before they replace the published ones.

        Args:
            listing: The date's archives and parsed objects.
            tmp: Record of the tmp partition as it was loaded.
            keys: Keys of its rows, compared with those of the published ones.
            job: Number of the parse job.

        Returns:
            The audit; ``None`` if tmp has no rows: the copy then decides whether raw may be
            emptied.

        Raises:
            Held: The rows must not be published.
        """
        source, survey = self.work.source, self.work.warehouse.tables.survey
        names, context = source_tables(source), self.context()
        if not keys.rows:
            return None
        origins = survey.origins(names, names.tmp_partition(self.date), context)
        found = self._of_raw(listing, keys, origins)
        verdicts = self._judged(
            source.raw_table, found, staged_rows(tmp), published=bool(keys.published), job=job
        )
        return RawAudit(keys=keys, origins=origins, verdicts=verdicts)

    def audit_copied(
        self, listing: DateListing, copy: CopyResult, before: PartitionRecord | None
    ) -> RawAudit:
        """Audit a raw partition whose rows were copied already, or that has none.

        Args:
            listing: The date's archives and parsed objects.
            copy: Result of the copy operation.
            before: Record of the partition in the store; ``None`` if it has none.
        """
        source, survey = self.work.source, self.work.warehouse.tables.survey
        names, context = source_tables(source), self.context()
        raw = names.raw_partition(self.date)
        count = survey.count_keys(names, raw, source.dedup_key, context)
        rows_before = before.rows if before else copy.rows_before or 0
        keys = KeyComparison(
            rows=count.rows,
            keyless=count.keyless,
            duplicates=count.duplicates,
            ids=count.rows - count.keyless - count.duplicates,
            published=rows_before,
            published_keyless=rows_before,  # their keys are no longer known
            published_ids=0,
            added=0,
            removed=0,
            kept=0,
        )
        origins = survey.origins(names, raw, context)
        found = self._of_raw(listing, keys, origins)
        verdicts = judge(found, self.work.rules, published=False).verdicts
        return RawAudit(keys=keys, origins=origins, verdicts=verdicts)

    def raw_published(
        self, audit: RawAudit, tmp: PartitionRecord | None, *, version: int, duplicates: int
    ) -> None:
        """Record what a new version of raw changed, and settle what was held."""
        table, keys, now = self.work.source.raw_table, audit.keys, utc_now()
        counted = bool(keys.added or keys.removed or keys.kept)
        self.work.store.changes.record(
            PartitionChange(
                table=table,
                date=self.date,
                version=version,
                run_id=self.work.run_id,
                made=now,
                rows=keys.rows,
                rows_before=keys.published,
                ids_added=keys.added if counted else None,
                ids_removed=keys.removed if counted else None,
                ids_kept=keys.kept if counted else None,
                duplicates=duplicates,
                parser_versions=tuple(sorted({o.version or "none" for o in audit.origins})),
            )
        )
        self._settle(table, Outcome.PUBLISHED, staged_rows(tmp))

    def _of_raw(
        self, listing: DateListing, keys: KeyComparison, origins: Sequence[Origin]
    ) -> dict[str, audits.Verdict]:
        return checks.of_raw(
            self.work.source,
            self.work.rules,
            keys=keys,
            archives=listing.archives,
            objects=listing.objects,
            origins=origins,
            days_before=self._rows_of_week(),
        )

    def _rows_of_week(self) -> list[int]:
        """Return raw's row counts of the 7 days before; ask BigQuery if the store knows too few."""
        source = self.work.source
        week = [self.date - dt.timedelta(days=days) for days in range(1, _WEEK + 1)]
        known = self.work.store.days.rows(source.raw_table, week[-1], week[0])
        if len(known) >= audits.WEEK_NEEDS:
            return list(known.values())
        names = source_tables(source)
        return self.work.warehouse.tables.survey.count_rows(
            names, [names.raw_partition(day) for day in week], self.context()
        )

    # -- joined

    def audit_join(self, table: str, inputs: JoinInputs) -> JoinAudit:
        """Audit the rows that a join would publish.

        Raises:
            Held: The join must not be made.
        """
        names = source_tables(self.work.source)
        count = self.work.warehouse.tables.survey.count_annotated(names, self.context())
        known = [c for c in self.work.store.changes.of(table, self.date) if c.annotated is not None]
        before = (known[0].rows, known[0].annotated or 0) if known and count.published else None
        found = checks.of_annotations(self.work.rules, count, before)
        if count.rows:  # without rows, the join operation decides
            found = self._judged(
                table, found, staged_join(inputs), published=bool(count.published), job=None
            )
        return JoinAudit(annotated=count.annotated, verdicts=found)

    def join_published(
        self, table: str, inputs: JoinInputs, *, version: int, rows: int, annotated: int
    ) -> None:
        """Record the rows of a new version of the joined partition, and settle what was held."""
        [*before] = self.work.store.changes.of(table, self.date, limit=1)
        self.work.store.changes.record(
            PartitionChange(
                table=table,
                date=self.date,
                version=version,
                run_id=self.work.run_id,
                made=utc_now(),
                rows=rows,
                rows_before=before[0].rows if before else None,
                annotated=annotated,
            )
        )
        self._settle(table, Outcome.PUBLISHED, staged_join(inputs))

    # -- decisions

    def settle_rejected(self, table: str) -> None:
        """Record that a person's rejection is carried out."""
        self._settle(table, Outcome.REJECTED, "")

    def rejected(self, table: str) -> HeldPartition | None:
        """Return the held partition that was rejected and not settled yet; ``None`` without one."""
        held = self.work.store.held.current(table, self.date)
        return held if held and held.decision is Decision.REJECT else None

    def accepted(self, table: str, staged: str) -> bool:
        """Whether a person accepted exactly these rows, and they are not published yet."""
        held = self.work.store.held.current(table, self.date)
        return held is not None and held.decision is Decision.ACCEPT and held.staged == staged

    def is_done(self, table: str) -> bool:
        """Whether this run's decision is already carried out, by this run or another."""
        held = {each.number: each for each in self.work.store.held.of(self.key)}
        decided = held.get(self.work.decision) if self.work.decision is not None else None
        done = decided is not None and decided.outcome in (Outcome.PUBLISHED, Outcome.REJECTED)
        if done:
            self.tell(Note(text=f"{table} of {self.date}: the decision is carried out"))
        return done

    def void(self, table: str) -> DecisionVoid:
        """Settle a decision about rows that are gone; return the error to raise."""
        self._settle(table, Outcome.SUPERSEDED, "")
        return DecisionVoid(
            f"the rows of {table} that were held on {self.date} are not there any more: others took"
            " their place, or tmp expired. What to do: see what is held now on the status page; if"
            " nothing is, materialize the date again"
        )

    # -- verdicts

    def _judged(
        self,
        table: str,
        found: Mapping[str, audits.Verdict],
        staged: str,
        *,
        published: bool,
        job: int | None,
    ) -> Mapping[str, audits.Verdict]:
        work, held = self.work, self.work.store.held
        accepted = held.accepted(table, self.date, staged)
        judgement = judge(found, work.rules, published=published, accepted=accepted)
        if not judgement.held:
            return judgement.verdicts
        number = held.record(
            self.key,
            table,
            judgement.held,
            staged=staged,
            job=job,
            run_id=work.run_id,
            now=utc_now(),
        )
        if {finding.audit for finding in judgement.held} <= work.accept:
            by = f"the tag {ACCEPT_TAG} of Dagster run {work.run_id}"
            held.decide(number, Decision.ACCEPT, by=by, now=utc_now())
            self.tell(Note(text=f"{self.key}: held, and accepted by {by}", warns=True))
            return judgement.verdicts
        raise Held(held_reason(work.source.name, self.date.isoformat(), judgement.held))

    def _settle(self, table: str, outcome: Outcome, staged: str) -> None:
        self.work.store.held.settle(table, self.date, outcome, staged=staged, now=utc_now())

    def check(self, key: dg.AssetKey, table: str, found: Mapping[str, audits.Verdict]) -> None:
        """Record the verdicts on a published partition and send them to the step's thread."""
        results = [verdict.result(table, name) for name, verdict in found.items()]
        self.work.store.checks.record(self.key, results, run_id=self.work.run_id, now=utc_now())
        self.tell(Checked(key=key, date=self.date, found=found))

    def check_raw(self, found: Mapping[str, audits.Verdict]) -> None:
        """Call ``check`` for the raw partition."""
        self.check(raw_key(self.work.source), self.work.source.raw_table, found)

    def check_joined(self, table: str, found: Mapping[str, audits.Verdict]) -> None:
        """Call ``check`` for the joined partition."""
        key = joined_key(self.work.source)
        if key is not None:
            self.check(key, table, found)
