"""The whole stack as its own processes, once for each database, for all tests of this folder."""

import datetime as dt
from collections.abc import Generator, Iterator

import pytest
from postgres import empty_database, postgresql
from stack_client import StackClient
from stacks import new_stack, started

from gardener_dagster.local.demo.upload import upload_archives
from gardener_dagster.local.samples.archives import make_samples
from gardener_dagster.local.stack.processes import Processes

GOOD = tuple(dt.date(2024, 3, day) for day in (1, 2))
"""Dates of sample archives."""
WITH_A_BAD_ONE = tuple(dt.date(2024, 5, day) for day in (1, 2))
"""The archives of the second are none."""
BAD = WITH_A_BAD_ONE[1]

LOG_LINES = 40


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows what the stack's processes wrote last."""
    report = yield
    stack = getattr(item, "funcargs", {}).get("stack")
    if report.failed and isinstance(stack, StackClient):
        report.sections.extend(ends_of_logs(stack.processes))
    return report


def ends_of_logs(processes: Processes) -> Iterator[tuple[str, str]]:
    for part in processes.parts:
        lines = part.log.read_text(encoding="utf-8", errors="replace").splitlines()
        yield f"last lines of {part.name}", "\n".join(lines[-LOG_LINES:])


@pytest.fixture(
    scope="session",
    params=["sqlite", "postgresql"],
)
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of the database that Dagster and the job store share; empty: SQLite files of each."""
    if request.param == "sqlite":
        yield ""
    else:
        with postgresql("fsync=off") as url:
            yield url


@pytest.fixture(scope="module")
def own_database(database: str) -> Iterator[str]:
    """As ``database``, for a stack that no other test uses."""
    if database:
        with empty_database(database) as url:
            yield url
    else:
        yield ""


@pytest.fixture(scope="session")
def stack(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackClient]:
    settings = new_stack(tmp_path_factory.mktemp("stack"), postgresql=database)
    archives = settings.home / "archives"
    expected = make_samples(archives, GOOD) | make_samples(archives, WITH_A_BAD_ONE)
    for archive in (archives / f"ndt/ndt7/{BAD:%Y/%m/%d}").iterdir():
        archive.write_bytes(b"this is no archive")
    with started(settings) as client:
        client.expected.update(expected)
        upload_archives(archives, settings.storage_url, client.config, [*GOOD, *WITH_A_BAD_ONE])
        yield client


@pytest.fixture(scope="session")
def backfills(stack: StackClient) -> dict[str, str]:
    """Two whole-chain backfills from an empty warehouse, started together; ended, with status."""
    chain = [
        [*path]
        for source in stack.config.sources
        for path in (
            ("parsed", source.experiment, source.datatype),
            (source.target_datasets.tmp, source.datatype),
            (source.target_datasets.raw, source.datatype),
        )
    ]
    chain.append(["ndt", "ndt7"])
    ids = {
        "good": stack.dagster.backfill(chain, GOOD),
        "bad": stack.dagster.backfill(chain, WITH_A_BAD_ONE),
    }
    return {name: stack.wait_for_backfill(backfill) for name, backfill in ids.items()}
