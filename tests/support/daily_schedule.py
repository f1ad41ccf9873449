"""The schedule *daily*, off and on, as its state in Dagster's storage.

Off, it does not tick in the middle of what is told of something else: it would each half past, and
ask for yesterday. On again, its last tick was at a time that is told, as if nobody had been there.
"""

import datetime as dt

import dagster as dg
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    ScheduleInstigatorData,
)


def is_known(instance: dg.DagsterInstance) -> bool:
    """Whether a daemon has seen it, and its state is there."""
    return bool(_states(instance))


def turn_off(instance: dg.DagsterInstance) -> None:
    """No tick comes by itself."""
    [state] = _states(instance)
    instance.update_instigator_state(state.with_status(InstigatorStatus.STOPPED))


def turn_on(instance: dg.DagsterInstance, *, last_tick: dt.datetime) -> None:
    """The next tick is the newest that was due since then."""
    [state] = _states(instance)
    data = state.instigator_data
    assert isinstance(data, ScheduleInstigatorData)
    then = last_tick.timestamp()
    data = data._replace(start_timestamp=then, last_iteration_timestamp=then)
    instance.update_instigator_state(state.with_data(data).with_status(InstigatorStatus.RUNNING))


def _states(instance: dg.DagsterInstance) -> list[InstigatorState]:
    return [state for state in instance.all_instigator_state() if state.name == "daily"]
