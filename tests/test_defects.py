"""No defect that was ever found is without a test that is named after it, as ``test_d07_…``.

``pytest -m defect`` runs them all; ``pytest -k d07`` those of one.
"""

import re
from pathlib import Path

NEWEST = 45
"""Raise it with the test of another defect."""


def test_every_defect_has_a_test() -> None:
    files = Path(__file__).parent.rglob("test_*.py")
    names = re.findall(r"def test_d(\d\d)_", "\n".join(f.read_text("utf-8") for f in files))
    assert {int(number) for number in names} == set(range(1, NEWEST + 1))
