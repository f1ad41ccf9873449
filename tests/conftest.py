"""Where tests have their files, and how several processes share the tests (``pytest -n``)."""

import os
import re
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

STACK = "tests/integration/"
STACK_SECONDS = 1_500
DEFECT = re.compile(r"test_d\d\d_")

MEMORY = Path("/dev/shm")  # noqa: S108 - tempfile makes the folders in it
MEMORY_BYTES = 8 * 2**30


def pytest_configure() -> None:
    """Files of tests are in memory where there is room, and processes can be ended.

    Hundreds of SQLite databases wait for the disk else: a third of the suite's time. TMPDIR, if
    set, says where they are. In a background job of a script SIGINT is ignored, also by what it
    starts; Dagster's processes then ignore SIGTERM, too, since they handle both alike.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if "TMPDIR" in os.environ or not os.access(MEMORY, os.W_OK):
        return
    if shutil.disk_usage(MEMORY).free >= MEMORY_BYTES:
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None  # ask for it anew


@pytest.hookimpl(tryfirst=True)  # before what `-m` asks for is looked at
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the whole stack are marked, and have more time; tests of defects are marked."""
    for item in items:
        if DEFECT.match(item.name):
            item.add_marker(pytest.mark.defect)
        if item.nodeid.startswith(STACK):
            item.add_marker(pytest.mark.stack)
            item.add_marker(pytest.mark.timeout(STACK_SECONDS))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(
    config: pytest.Config,
    log: Any,  # xdist's, without a type of its own
) -> "LoadScopeScheduling":
    """Tests of a file share a process, and so do those of the stack on one database.

    ``--dist loadgroup`` is for this, but with pytest 9.2 xdist 3.8 does not see the groups.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            file, _, test = nodeid.partition("::")
            if not file.startswith(STACK):
                return file
            return STACK + ("postgresql" if "[postgresql" in test else "")

    return Scheduling(config, log)
