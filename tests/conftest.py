"""How the tests are shared out when several processes run them (``pytest -n``)."""

import pytest

_STACK = "integration"


@pytest.hookimpl(tryfirst=True)  # before xdist looks for the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests share a process, and so their fixtures; those of the stack share one stack.

    These take longest, so they begin first.
    """
    items.sort(key=lambda item: item.path.parent.name != _STACK)
    for item in items:
        folder = item.path.parent.name
        group = folder if folder == _STACK else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
