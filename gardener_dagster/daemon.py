"""Dagster's daemons, in two processes: backfills have one of their own.

Dagster runs all of them as threads of one process. That of backfills makes runs one after the
other, for minutes, and meanwhile schedules, sensors and the run queue wait for Python's lock: what
is due today waited for what somebody asked for of last year. Two processes share the processor as
their runs do, daily work first. With that of backfills goes one that Dagster does not have
(``status_daemon``), which nobody waits for either. All else is Dagster's; ``dagster-daemon run``,
which has all of its own in one process, works too.
"""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from multiprocessing.connection import wait
from typing import Any

import dagster as dg
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._daemon.controller import create_daemons_from_instance, daemon_controller_from_instance
from dagster._daemon.daemon import BackfillDaemon, DagsterDaemon
from dagster._utils.interrupts import capture_interrupts

from gardener_api.jobs import Priority
from gardener_dagster.event_log import OpenEventLog
from gardener_dagster.run_queue import NICENESS
from gardener_dagster.status_daemon import StatusDaemon


class DaemonEndedError(RuntimeError):
    """The process of backfills has ended by itself; its log says why."""


def run(workspace: Sequence[str]) -> None:
    """Run the daemons until SIGTERM or SIGINT. Neither process outlives the other.

    Args:
        workspace: Files like ``workspace.yaml``.

    Raises:
        DaemonEndedError: That of backfills ended, and nobody had asked it to.
    """
    # Not a fork of this process: gRPC does not live through one.
    context = multiprocessing.get_context("spawn")
    backfills = context.Process(target=_run_backfills, args=(workspace,), name="backfills")
    backfills.start()
    ending = threading.Event()
    watch = threading.Thread(target=_end_with, args=(backfills.sentinel, ending), daemon=True)
    watch.start()
    try:
        _run(workspace, backfills=False)
    finally:
        ending.set()
        by_itself = wait([backfills.sentinel], timeout=0)  # seen before there is a code
        backfills.terminate()
        backfills.join()
    if by_itself and backfills.exitcode:
        raise DaemonEndedError(f"the daemon of backfills ended with code {backfills.exitcode}")


def _run_backfills(workspace: Sequence[str]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(NICENESS[Priority.BACKFILL])
    _run(workspace, backfills=True)


def _run(workspace: Sequence[str], *, backfills: bool) -> None:
    """What ``dagster-daemon run`` does, with that of backfills or with all others."""

    def chosen(instance: dg.DagsterInstance) -> Sequence[DagsterDaemon[Any]]:
        daemons = create_daemons_from_instance(instance)
        found = [daemon for daemon in daemons if isinstance(daemon, BackfillDaemon) == backfills]
        if backfills and isinstance(instance.event_log_storage, OpenEventLog):
            found.append(StatusDaemon())  # another storage keeps no states
        return found

    try:
        with (
            capture_interrupts(),
            dg.DagsterInstance.get() as instance,
            daemon_controller_from_instance(
                instance,
                workspace_load_target=WorkspaceFileTarget(list(workspace)),
                gen_daemons=chosen,
                code_server_log_level="warning",
            ) as controller,
        ):
            controller.check_daemon_loop()
    except KeyboardInterrupt:
        logging.getLogger("dagster.daemon").info("daemons were told to end")


def _end_with(sentinel: int, ending: threading.Event) -> None:
    wait([sentinel])
    if not ending.is_set():
        os.kill(os.getpid(), signal.SIGTERM)


def _end_with_parent() -> None:
    """At once, as if killed with it: the next parent starts another, and two would do all twice."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)
