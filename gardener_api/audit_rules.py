"""The audits of a partition before it is published: their names, thresholds and actions.

What an audit finds is decided in ``planning.audits``; here is what follows from a finding, as the
configuration says it: the key ``audits``, and ``sources[].audits`` over it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict, Field


class Action(StrEnum):
    """What follows where an audit does not pass."""

    PUBLISH = "publish"  # nothing: its finding is only reported
    WARN = "warn"  # the partition is published, and its check fails
    HOLD = "hold"  # the published partition stays until a person decides


class Audit(BaseModel):
    """An audit without a threshold, as the configuration file has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    action: Action | None = None


class ShareAudit(Audit):
    """An audit with a threshold: a share, 1 for all."""

    threshold: float | None = Field(default=None, ge=0, le=1)


class Audits(BaseModel):
    """The key ``audits``; what it leaves out has the default."""

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
    """What makes an audit fail, and what follows.

    Attributes:
        threshold: The share that must be reached; not used by audits without one.
        action: As configured; ``None``: the default.
        protects: The default is to hold where rows are published that could get worse.
    """

    threshold: float = 1.0
    action: Action | None = None
    protects: bool = False

    def action_for(self, *, published: bool) -> Action:
        """Return the action.

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
    """Return the rules of a source.

    Args:
        *levels: The configuration's audits, then the source's; the later one wins.
    """
    rules = dict(DEFAULT_RULES)
    for level in levels:
        for name, change in level.changes():
            given = {key: value for key, value in change.model_dump().items() if value is not None}
            rules[name] = replace(rules[name], **given)
    return rules
