"""Prometheus' own programs, for tests that ask them."""

import os
import shutil

import pytest


def program(name: str) -> str:
    """Where ``prometheus`` or ``promtool`` is; skips where it is not, and fails where CI runs."""
    found = shutil.which(name)
    if found:
        return found
    reason = f"{name} is not installed: it is in Debian's package prometheus"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
