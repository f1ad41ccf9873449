import pytest
from hypothesis import given
from hypothesis import strategies as st

from gardener_api.audit_rules import DEFAULT_RULES, Action, AuditRule, Audits, rules_of
from gardener_dagster.planning import audits
from gardener_dagster.planning.audits import Verdict
from gardener_dagster.planning.publication import held_reason, judge

NAMES = sorted(DEFAULT_RULES)
ACTIONS = st.none() | st.sampled_from(list(Action))
VERDICTS = st.dictionaries(
    st.sampled_from(NAMES),
    st.builds(Verdict, passed=st.booleans(), description=st.just("7, 10 before")),
)
RULES = st.fixed_dictionaries(
    {name: st.builds(AuditRule, action=ACTIONS, protects=st.booleans()) for name in NAMES}
)


@given(
    found=VERDICTS,
    rules=RULES,
    published=st.booleans(),
    accepted=st.frozensets(st.sampled_from(NAMES)),
)
def test_what_holds(
    found: dict[str, Verdict],
    rules: dict[str, AuditRule],
    published: bool,
    accepted: frozenset[str],
) -> None:
    judgement = judge(found, rules, published=published, accepted=accepted)
    held = {finding.audit for finding in judgement.held}
    assert judgement.verdicts.keys() == found.keys()
    for name, verdict in found.items():
        rule, told = rules[name], judgement.verdicts[name]
        holds = rule.action is Action.HOLD or (rule.action is None and rule.protects and published)
        assert (name in held) == (holds and not verdict.passed and name not in accepted)
        assert told.passed == (verdict.passed or rule.action is Action.PUBLISH)


def test_a_first_version_is_held_only_where_the_configuration_says_so() -> None:
    found = {"annotated": Verdict(passed=False, description="no")}
    assert not judge(found, DEFAULT_RULES, published=True).held
    hold = Audits.model_validate({"annotated": {"action": "hold"}})
    assert judge(found, rules_of(hold), published=False).held
    warn = Audits.model_validate({"annotated": {"action": "warn"}})
    assert not judge(found, rules_of(hold, warn), published=True).held


def test_a_source_changes_only_what_it_names() -> None:
    everywhere = Audits.model_validate({"annotated": {"action": "hold", "threshold": 0.5}})
    here = Audits.model_validate({"annotated": {"threshold": 0.7}})
    assert rules_of(everywhere, here)["annotated"] == AuditRule(threshold=0.7, action=Action.HOLD)
    assert rules_of(everywhere, here)["rows_of_week"] == DEFAULT_RULES["rows_of_week"]


def test_the_reason_has_both_numbers_and_says_what_to_do() -> None:
    found = {"rows_of_previous": audits.rows_of_previous(7, 10, share=0.99)}
    reason = held_reason("ndt/ndt7", "2024-03-01", judge(found, DEFAULT_RULES, published=True).held)
    assert reason.startswith("held: rows_of_previous: 7 rows, 10 in the version before: see")
    assert ". What to do: " in reason
    assert "`gardener accept --source ndt/ndt7 --dates 2024-03-01`" in reason


@pytest.mark.parametrize(
    ("kept", "removed", "passed"), [(0, 0, True), (99, 1, True), (98, 2, False), (0, 1, False)]
)
def test_ids_of_previous(kept: int, removed: int, passed: bool) -> None:
    assert audits.ids_of_previous(kept, removed, share=0.99).passed is passed


@pytest.mark.parametrize(
    ("ids", "before", "passed"),
    [(10, None, True), (5, None, True), (5, 1.0, False), (5, 0.5, True)],
)
def test_unique_ids(ids: int, before: float | None, passed: bool) -> None:
    assert audits.unique_ids(10, ids, before=before, share=0.99).passed is passed


@pytest.mark.parametrize(
    ("annotated", "before", "passed"),
    [
        (0, None, True),
        (0, (0, 0), True),
        (9, (10, 9), True),
        (8, (10, 9), False),
        (0, (10, 0), True),
    ],
)
def test_annotated_of_previous(
    annotated: int, before: tuple[int, int] | None, passed: bool
) -> None:
    assert audits.annotated_of_previous(10, annotated, before, share=0.99).passed is passed


@given(rows=st.integers(0, 100), before=st.integers(1, 100), share=st.floats(0, 1))
def test_never_fewer_rows_than_the_threshold_says(rows: int, before: int, share: float) -> None:
    found = {"rows_of_previous": audits.rows_of_previous(rows, before, share=share)}
    assert bool(judge(found, DEFAULT_RULES, published=True).held) == (rows < share * before)
