"""The audits of a partition before it is published: their names, thresholds and actions.

``planning.audits`` makes the audits. This module reads their rules from the configuration: the key
``audits``, which ``sources[].audits`` overrides.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict, Field


class Action(StrEnum):
    """The action if an audit fails."""

    PUBLISH = "publish"  # publish the partition; the finding is only reported
    WARN = "warn"  # publish the partition; its check fails
    HOLD = "hold"  # keep the published partition until a person decides


class Audit(BaseModel):
    """The configuration of an audit without a threshold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    action: Action | None = None


class ShareAudit(Audit):
    """The configuration of an audit with a threshold: a share from 0 to 1."""

    threshold: float | None = Field(default=None, ge=0, le=1)


class Audits(BaseModel):
    """The key ``audits``; omitted audits have their defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unique_keys: Audit = Audit()
    unique_ids: ShareAudit = ShareAudit()
    rows_present: Audit = Audit()
    archives_parsed: Audit = Audit()
    one_parser_version: Audit = Audit()
    rows_of_previous: ShareAudit = ShareAudit()
    ids_of_previous: ShareAudit = ShareAudit()
    rows_of_week: ShareAudit = ShareAudit()
    annotated: ShareAudit = ShareAudit()
    annotated_of_previous: ShareAudit = ShareAudit()

    def changes(self) -> Iterator[tuple[str, Audit]]:
        """Yield each audit with its name."""
        for name in type(self).model_fields:
            yield name, getattr(self, name)


@dataclass(frozen=True, kw_only=True)
class AuditRule:
    """The threshold of an audit, and the action if it fails.

    Attributes:
        threshold: The minimum share to pass; audits without a threshold ignore it.
        action: The configured action; ``None``: the default.
        protects: Whether the default is to hold (else to warn) if rows are already published.
    """

    threshold: float = 1.0
    action: Action | None = None
    protects: bool = False

    def action_for(self, *, published: bool) -> Action:
        """Return the action if the audit fails.

        Args:
            published: Whether there is a published partition that would be replaced.
        """
        if self.action is not None:
            return self.action
        return Action.HOLD if self.protects and published else Action.WARN


AuditRules = Mapping[str, AuditRule]

DEFAULT_RULES: AuditRules = MappingProxyType(
    {
        "unique_keys": AuditRule(protects=True),
        "unique_ids": AuditRule(threshold=0.99, protects=True),
        "rows_present": AuditRule(),
        "archives_parsed": AuditRule(),
        "one_parser_version": AuditRule(),
        "rows_of_previous": AuditRule(threshold=0.99, protects=True),
        "ids_of_previous": AuditRule(threshold=0.99, protects=True),
        "rows_of_week": AuditRule(threshold=0.5),
        "annotated": AuditRule(threshold=0.9),
        "annotated_of_previous": AuditRule(threshold=0.99, protects=True),
    }
)


def rules_of(*levels: Audits) -> AuditRules:
    """Return the audit rules of a source.

    Args:
        *levels: The configuration's audits, then the source's; later ones override earlier ones.
    """
    rules = dict(DEFAULT_RULES)
    for level in levels:
        for name, change in level.changes():
            given = {key: value for key, value in change.model_dump().items() if value is not None}
            rules[name] = replace(rules[name], **given)
    return rules
