"""What the tests of the step ``parse`` start with."""

from collections.abc import Callable
from typing import Any

import pytest
from parse_runs import DAYS, At
from simulated import Put

from gardener_api.jobs.job import Outcome
from gardener_api.store.store import JobStore
from gardener_dagster.assets import parsed


@pytest.fixture
def archives(put_archive: Put) -> None:
    for day in DAYS:
        for name in ("a.tgz", "b.tgz"):
            put_archive(day, name=name)


@pytest.fixture
def when_polling(monkeypatch: pytest.MonkeyPatch) -> At:
    """Does something when the run first looks at its jobs, or each time; it has asked by then."""
    monkeypatch.setattr(parsed, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(parsed, "CHAIN_POLL_SECONDS", 0.05)
    monkeypatch.setattr(parsed, "CANCEL_POLL_SECONDS", 0.1)
    unreported = JobStore.unreported

    def arrange(happens: Callable[[], object], *, always: bool = False) -> None:
        pending = [happens]

        def poll(store: JobStore, *args: Any, **kwargs: Any) -> list[Outcome]:
            if pending:
                (pending[0] if always else pending.pop())()
            return unreported(store, *args, **kwargs)

        monkeypatch.setattr(JobStore, "unreported", poll)

    return arrange
