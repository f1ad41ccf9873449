"""The code server: Dagster's own, whose runs are forks of a process that has everything imported.

Dagster starts each run as a fresh Python, which imports the same libraries and makes the same
definitions again; of a small date's tables that is most of the cost. Here ``multiprocessing``'s
fork server keeps a process that has done both (``preloaded``), and each run is forked from it. All
else is Dagster's: how runs are started, watched and told to end. A server that Dagster starts by
itself, for a workspace that names a module, works too, only without the forks.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from multiprocessing import forkserver
from typing import Any

import grpc
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.utils import FuturesAwareThreadPoolExecutor
from dagster._grpc.server import DagsterApiServer, DagsterGrpcServer
from dagster._grpc.types import ExecuteExternalJobArgs
from dagster._serdes import deserialize_value
from dagster._utils.log import configure_loggers

from gardener_dagster.graph import urgency_of
from gardener_dagster.run_queue import NICENESS

LOCATION = "gardener"
MODULE = "gardener_dagster.definitions"
PRELOADED = "gardener_dagster.preloaded"


class ForkingApiServer(DagsterApiServer):
    """Dagster's servicer; it forks a run's process where Dagster's starts a fresh one."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - handed through as they are
        super().__init__(**options)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([PRELOADED])
        # Dagster sets it to "spawn", and asks nothing of it that the two have not in common.
        self._mp_ctx = context  # type: ignore[assignment]
        forkserver.ensure_running()  # now, that the first run need not wait for the imports

    def StartRun(self, request: Any, _context: grpc.ServicerContext) -> Any:  # noqa: ANN401 - Dagster's
        """Starts a run; while it waits for its last ones to end, it cannot be reached for others.

        Dagster's says that it is ending, and the run has failed. One that finds no server goes back
        into the queue, and is launched by the next.
        """
        if self._shutdown_once_executions_finish_event.is_set():
            _context.abort(grpc.StatusCode.UNAVAILABLE, "the code server is ending")
        reply = super().StartRun(request, _context)
        arguments = deserialize_value(request.serialized_execute_run_args, ExecuteExternalJobArgs)
        self._make_way(arguments.run_id)
        return reply

    def _make_way(self, run_id: str) -> None:
        """Lets a run that is not daily have the processor when no daily one wants it."""
        run = self._instance.get_run_by_id(run_id) if self._instance else None
        with self._execution_lock:
            process, _ = self._executions.get(run_id, (None, None))
        if run is None or process is None or not process.pid:
            return  # it has ended already
        niceness = NICENESS[urgency_of(run.tags)]
        with contextlib.suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, process.pid, niceness)


def serve(*, host: str, port: int) -> None:
    """Serve the code location until SIGTERM or SIGINT, and then until its last run has ended.

    Args:
        host: The address to listen on.
        port: The port.

    Raises:
        OSError: The port cannot be listened on.
    """
    with socket.create_server((host, port)):
        pass  # gRPC would share the port of another server, and each would get half of the calls
    for number in (signal.SIGINT, signal.SIGTERM):
        # Said in full: in the background of a shell script, SIGINT is ignored from the start.
        signal.signal(number, signal.default_int_handler)
    configure_loggers()
    log = logging.getLogger("dagster.code_server")
    ending = threading.Event()
    threads = FuturesAwareThreadPoolExecutor()
    servicer = ForkingApiServer(
        server_termination_event=ending,
        logger=log,
        server_threadpool_executor=threads,
        loadable_target_origin=LoadableTargetOrigin(
            executable_path=sys.executable,
            working_directory=os.getcwd(),  # noqa: PTH109 - Dagster's wants text
            module_name=MODULE,
        ),
        location_name=LOCATION,
    )
    server = DagsterGrpcServer(
        server_termination_event=ending,
        dagster_api_servicer=servicer,
        logger=log,
        threadpool_executor=threads,
        host=host,
        port=port,
    )
    log.info("code server on port %d in process %d", port, os.getpid())
    try:
        server.serve()
    except KeyboardInterrupt:
        log.info("code server was interrupted")
