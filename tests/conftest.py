"""How the tests are shared out when several processes run them (``pytest -n``)."""

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

STACK = "tests/integration/"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of the stack take longest: they begin first."""
    items.sort(key=lambda item: not item.nodeid.startswith(STACK))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(
    config: pytest.Config,
    log: Any,  # xdist's, without a type of its own
) -> "LoadScopeScheduling":
    """A file's tests share a process, and so their fixtures; those of the stack share one stack.

    ``--dist loadgroup`` is for this, but with pytest 9.2 xdist 3.8 does not see the groups.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return STACK if file.startswith(STACK) else file

    return Scheduling(config, log)
