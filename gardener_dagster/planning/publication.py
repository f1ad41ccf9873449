"""Decide whether an audited partition is published, or held until a person decides. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from gardener_api.audit_rules import Action, AuditRules
from gardener_api.store.publishing.held import Finding
from gardener_dagster.planning.audits import Verdict

ONLY_REPORTED = "only reported: "
"""What the description of an audit begins with that did not pass, and whose action is publish."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What follows from the audits of a partition.

    Attributes:
        verdicts: Of all audits, by name, as its checks tell them if it is published.
        held: The findings that hold it; none: it is published.
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
    """Decide what follows from the audits of a partition.

    Args:
        found: What they found, by name.
        rules: Of the source.
        published: Whether there is a published partition that would be replaced.
        accepted: Audits that do not hold these rows, since a person said so.
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
    """Say why a partition is held, and what to do: the error of its job.

    Args:
        source: ``<experiment>/<datatype>``.
        date: The partition.
        findings: At least one.
    """
    found = "; ".join(f"{finding.audit}: {finding.description}" for finding in findings)
    return (
        f"held: {found}. What to do: look at the rows in tmp, then `gardener accept --source"
        f" {source} --dates {date}` to publish them, or `gardener reject` to drop them; until then"
        " the published partition stays as it is"
    )
