"""The sidecar: its applications, put together and run in one process.

The applications are in ``jobs_api``, ``status`` and ``metrics``. This module owns the store, the
writer and the lease sweep, and starts and stops them in order.

The server is uvicorn with a transport that joins the head and the body of an answer into one write
(``connections``). Without it, a Go client (``tests/go``) loses 78 of 1,000 jobs; with it, none.
granian loses none either and is faster: 33,900 calls a second without a store; uvicorn serves
17,800, and 19,900 with joined writes. granian was rejected after tests of version 2.8.9:

- Its embedded mode, which three ports that share a store need, is declared experimental.
- A connection that has sent half a head delays its shutdown by 30 s; here only open calls do.
- It binds a port on which another sidecar listens, without an error.
- It accepts no bound socket, and does not report which free port it listens on.
"""

import asyncio
import contextlib
import datetime as dt
import logging
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass

import uvicorn
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from gardener_api import logging as logs
from gardener_api.config import GardenerConfig
from gardener_api.links import Links
from gardener_api.server.call_times import RequestTimes
from gardener_api.server.connections import BoundedConnection
from gardener_api.server.group_commit import Clock, GroupCommit
from gardener_api.server.health import Check, health_routes
from gardener_api.server.jobs_api import job_endpoints
from gardener_api.server.metrics import create_metrics_app
from gardener_api.server.reporter import Reporter
from gardener_api.status.pages import create_status_app
from gardener_api.store.store import JobStore

log = logging.getLogger(__name__)

_SWEEPS_PER_LEASE = 20
_SWEEP_SECONDS = (0.05, 30.0)  # minimum and maximum pause between two sweeps
_WRITER_SECONDS = 2.0  # for its last transaction, after the open calls have ended
_FILES = 65_536
_KEEP_ALIVE_SECONDS = 75  # longer than parsers pause between calls: they reuse connections


def utc_now() -> dt.datetime:
    """Return the time, aware and UTC."""
    return dt.datetime.now(dt.UTC)


def create_app(
    store: JobStore,
    commits: GroupCommit,
    *,
    token: str | None = None,
    config: GardenerConfig | None = None,
    reporter: Reporter | None = None,
) -> ASGIApp:
    """Create the application of the jobs port.

    Args:
        store: ``/ready`` checks it.
        commits: Executes the calls; the caller starts and closes it.
        token: The bearer token of the jobs API; ``None``: no authentication.
        config: ``/ready`` describes it.
        reporter: ``/ready`` reports its state, but never fails on it: parsers do not need Dagster.
    """
    checks: dict[str, Check] = {"the writer": commits.check, "the store": store.ping}
    if config is not None:
        about = f"{len(config.sources)} sources, from {config.start_date}"
        checks["the configuration"] = lambda: about
    if reporter is not None:
        checks["observations for Dagster"] = reporter.state
    others = Starlette(routes=health_routes(checks))
    others.router.redirect_slashes = False
    endpoints = job_endpoints(commits, token=token)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await endpoints.get(scope["path"], others)(scope, receive, send)

    return app


@dataclass(frozen=True, kw_only=True)
class Ports:
    """The ports on which a sidecar listens."""

    jobs: int
    status: int
    metrics: int | None


def serve(
    *,
    config: GardenerConfig,
    store_url: str,
    host: str = "127.0.0.1",
    port: int = 8080,
    status_port: int = 8081,
    metrics_port: int | None = None,
    token: str | None = None,
    shutdown_timeout: float = 20.0,
    links: Links | None = None,
    json_log: bool = False,
    may_migrate: bool = True,
) -> None:
    """Run the sidecar until SIGTERM or SIGINT, then finish the open calls.

    Args:
        config: The configuration.
        store_url: The URL of the job store.
        host: The address to listen on.
        port: The port of the jobs API; 0: any free port.
        status_port: The port of the status page.
        metrics_port: The port of the metrics; ``None``: no metrics.
        token: The bearer token of the jobs API; ``None``: no authentication.
        shutdown_timeout: The maximum seconds to finish open calls at shutdown.
        links: Makes the links of the status page.
        json_log: Whether each line of the log is a JSON object, else text.
        may_migrate: Whether a missing store is created and an older one migrated, else rejected.

    Raises:
        StoreError: The store cannot be used.
        OSError: A port cannot be bound.
    """
    logs.configure(as_json=json_log)
    _raise_file_limit()
    stop = asyncio.Event()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await run(
            config=config,
            store_url=store_url,
            host=host,
            ports=Ports(jobs=port, status=status_port, metrics=metrics_port),
            token=token,
            shutdown_timeout=shutdown_timeout,
            links=links,
            stop=stop,
            may_migrate=may_migrate,
        )

    with asyncio.Runner(loop_factory=uvicorn.Config("").get_loop_factory()) as runner:
        runner.run(main())


async def run(
    *,
    config: GardenerConfig,
    store_url: str,
    host: str,
    ports: Ports,
    token: str | None,
    shutdown_timeout: float,
    stop: asyncio.Event,
    started: Callable[[Ports], None] = lambda _: None,
    clock: Clock = utc_now,
    links: Links | None = None,
    may_migrate: bool = True,
) -> None:
    """Run the sidecar on this event loop until ``stop`` is set.

    Args:
        config: The configuration.
        store_url: The URL of the job store.
        host: The address to listen on.
        ports: The ports to listen on; 0: any free port.
        token: The bearer token of the jobs API; ``None``: no authentication.
        shutdown_timeout: The maximum seconds to finish open calls at shutdown.
        stop: The sidecar shuts down when it is set.
        started: Called with the bound ports.
        clock: Returns the time, aware and UTC.
        links: Makes the links of the status page.
        may_migrate: Whether a missing store is created and an older one migrated, else rejected.

    Raises:
        StoreError: The store cannot be used.
        OSError: A port cannot be bound.
    """
    dagster_url = links.dagster_url if links else None
    store = JobStore.open(
        store_url,
        lease=config.tracker.timeout,
        max_attempts=config.tracker.max_attempts,
        observed=bool(dagster_url),
        may_migrate=may_migrate,
    )
    with contextlib.closing(store), _reporting(store, dagster_url, clock) as reporter:
        async with _writer(store, clock, shutdown_timeout) as commits:
            times = RequestTimes()
            apps: dict[str, tuple[int, ASGIApp]] = {
                "jobs": (
                    ports.jobs,
                    times.timed(
                        create_app(store, commits, token=token, config=config, reporter=reporter)
                    ),
                ),
                "status": (
                    ports.status,
                    create_status_app(config, store, clock=clock, links=links),
                ),
            }
            if ports.metrics is not None:
                metrics = create_metrics_app(
                    config,
                    store.metrics,
                    clock=clock,
                    others=[times.metric, *([reporter] if reporter else [])],
                )
                apps["metrics"] = (ports.metrics, metrics)
            with _listening(host, {name: port for name, (port, _) in apps.items()}) as sockets:
                bound = {name: s.getsockname()[1] for name, s in sockets.items()}
                log.info("listening on %s: %s", host, bound)
                servers = [
                    (_server(app, shutdown_timeout), sockets[name])
                    for name, (_, app) in apps.items()
                ]
                started(
                    Ports(jobs=bound["jobs"], status=bound["status"], metrics=bound.get("metrics"))
                )
                async with asyncio.TaskGroup() as tasks:
                    sweep = tasks.create_task(_sweep(store, config.tracker.timeout, clock))
                    running = [
                        tasks.create_task(server.serve(sockets=[s])) for server, s in servers
                    ]
                    await stop.wait()
                    log.info(
                        "ending: open calls get %.0f s, new ones are refused", shutdown_timeout
                    )
                    for server, _ in servers:
                        server.should_exit = True
                    await asyncio.wait(running)
                    sweep.cancel()


class _Server(uvicorn.Server):
    """A server that leaves signals to its process, which runs several servers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture no signals."""
        yield


def _server(app: ASGIApp, shutdown_timeout: float) -> _Server:
    return _Server(
        uvicorn.Config(
            app,
            http=BoundedConnection,
            lifespan="off",  # `run` opens and closes what the applications need
            ws="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=max(1, round(shutdown_timeout)),
        )
    )


@contextlib.asynccontextmanager
async def _writer(
    store: JobStore, clock: Clock, shutdown_timeout: float
) -> AsyncIterator[GroupCommit]:
    commits = GroupCommit(store, clock=clock)
    commits.start()
    try:
        yield commits
    finally:
        # The servers have ended, so no caller waits any more: only the last transaction is left.
        await commits.close(timeout=min(shutdown_timeout, _WRITER_SECONDS))


@contextlib.contextmanager
def _reporting(store: JobStore, dagster_url: str | None, clock: Clock) -> Iterator[Reporter | None]:
    if not dagster_url:
        yield None
        return
    reporter = Reporter(store.outbox, dagster_url, clock=clock)
    reporter.start()
    try:
        yield reporter
    finally:
        reporter.close()


@contextlib.contextmanager
def _listening(host: str, ports: Mapping[str, int]) -> Iterator[dict[str, socket.socket]]:
    """Bind all ports, or none.

    Raises:
        OSError: A port cannot be bound; the message names it.
    """
    with contextlib.ExitStack() as stack:
        sockets: dict[str, socket.socket] = {}
        for name, port in ports.items():
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            try:
                listener = socket.create_server((host, port), family=family, backlog=2048)
            except OSError as error:
                raise OSError(
                    error.errno, f"{host}:{port} for {name} cannot be listened on: {error.strerror}"
                ) from error
            sockets[name] = stack.enter_context(listener)
        yield sockets


async def _sweep(store: JobStore, lease: dt.timedelta, clock: Clock) -> None:
    """Expire leases periodically, even while no calls arrive."""
    least, most = _SWEEP_SECONDS
    pause = min(max(lease.total_seconds() / _SWEEPS_PER_LEASE, least), most)
    while True:
        try:
            await asyncio.to_thread(lambda: store.expire(now=clock()))
        except SQLAlchemyError:
            log.exception("leases could not be looked through; once more in %.1f s", pause)
        await asyncio.sleep(pause)


def _raise_file_limit() -> None:
    """Raise the limit of open files, usually 1,024, for thousands of connections."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if now != resource.RLIM_INFINITY:
        wanted = _FILES if most == resource.RLIM_INFINITY else min(most, _FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(now, wanted), most))
