"""Decide whether an audited partition is published, or held until a person decides. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from gardener_api.audit_rules import Action, AuditRules
from gardener_api.store.publishing.held import Finding
from gardener_dagster.planning.audits import Verdict

ONLY_REPORTED = "only reported: "
"""Prefix of the description of a failed audit whose action is ``publish``."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The decision about a partition after its audits.

    Attributes:
        verdicts: Verdicts of all audits, by name, as the asset checks report them on publication.
        held: Findings that hold the partition; empty: it is published.
    """

    verdicts: Mapping[str, Verdict]
    held: Sequence[Finding] = ()


def judge(
    found: Mapping[str, Verdict],
    rules: AuditRules,
    *,
    published: bool,
    accepted: Collection[str] = (),
) -> Judgement:
    """Decide whether a partition is published or held.

    Args:
        found: Verdicts of the audits, by name.
        rules: Audit rules of the source.
        published: Whether there is a published partition that would be replaced.
        accepted: Audits whose findings a person accepted for these rows.
    """
    verdicts: dict[str, Verdict] = {}
    held = []
    for name, verdict in found.items():
        action = rules[name].action_for(published=published)
        if verdict.passed:
            verdicts[name] = verdict
        elif action is Action.PUBLISH:
            text = ONLY_REPORTED + verdict.description
            verdicts[name] = replace(verdict, passed=True, description=text)
        else:
            verdicts[name] = verdict
            if action is Action.HOLD and name not in accepted:
                numbers = dict(verdict.metadata)
                held.append(Finding(audit=name, description=verdict.description, numbers=numbers))
    return Judgement(verdicts=verdicts, held=tuple(held))


def held_reason(source: str, date: str, findings: Sequence[Finding]) -> str:
    """Return the job's error text: why its partition is held, and what to do.

    Args:
        source: ``<experiment>/<datatype>``.
        date: Date of the partition.
        findings: Findings that hold it; at least one.
    """
    found = "; ".join(f"{finding.audit}: {finding.description}" for finding in findings)
    return (
        f"held: {found}. What to do: look at the rows in tmp, then `gardener accept --source"
        f" {source} --dates {date}` to publish them, or `gardener reject` to drop them; until then"
        " the published partition stays as it is"
    )
