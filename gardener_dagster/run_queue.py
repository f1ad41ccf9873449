"""The run queue and the run launcher that ``dagster.yaml`` names, on Dagster's public classes.

The queue tags each run by the kind of its work, because the limits in ``dagster.yaml`` apply to
tags, and a run that a person or a backfill launches has none of ours. (Pools need no tags, but one
limit would apply to all runs that wait for parsers: daily runs would wait behind backfills.)

The launcher checks the health of runs, so that a run whose process died does not stay STARTED.
"""

import json
import socket
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import psutil
from dagster import (
    AssetKey,
    DagsterEventType,
    DagsterRun,
    DefaultRunLauncher,
    Field,
    Permissive,
    QueuedRunCoordinator,
    Shape,
    SubmitRunContext,
)

from gardener_dagster.assets.keys import (
    PARSE_TAG,
    PARSED,
    TABLES_TAG,
    URGENT_TABLES_TAG,
    priority_of,
    tables_tag,
)
from gardener_dagster.dagster_internals import CheckRunHealthResult, WorkerStatus

_POD_TAG = "dagster-k8s/config"
"""Tag with the pod configuration that ``K8sRunLauncher`` reads."""
_CODE_SERVER_TAG = ".dagster/grpc_info"
"""Tag that ``DefaultRunLauncher`` sets: host, and port or socket, of the run's code server."""
_CLOCK_TOLERANCE = timedelta(seconds=2)
"""Error of a process's start time: the kernel derives it from a boot time in whole seconds."""


class GardenerRunQueue(QueuedRunCoordinator):
    """Dagster's run queue; also tags each run by the kind of its work."""

    def __init__(self, kubernetes: Mapping[str, Any] | None = None, **config: Any) -> None:  # noqa: ANN401 - Dagster's
        """Create the queue.

        Args:
            kubernetes: Values of the tag ``dagster-k8s/config``: ``parse`` for the pods of runs
                that wait for parsers, ``tables`` for the pods of runs that make tables.
            **config: Dagster's configuration of the queue.
        """
        super().__init__(**config)
        self._kubernetes = kubernetes or {}

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Return Dagster's configuration schema with the key ``kubernetes`` added."""
        kinds = {kind: Field(Permissive(), is_required=False) for kind in ("parse", "tables")}
        inherited: Any = super().config_type()
        return {**inherited, "kubernetes": Field(Shape(kinds), is_required=False)}

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Mapping[str, Any]) -> Self:  # noqa: ANN401 - Dagster's
        """Create the queue from its section of ``dagster.yaml``."""
        return cls(inst_data=inst_data, **config_value)

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Tag the run and queue it."""
        run = context.dagster_run
        groups = _groups(context)
        if groups is not None:
            tags = limit_tags(run.tags, groups)
            self._instance.add_run_tags(run.run_id, tags | self._pod_tags({**run.tags, **tags}))
        return super().submit_run(context)

    def _pod_tags(self, tags: Mapping[str, str]) -> dict[str, str]:
        kind = "parse" if PARSE_TAG in tags else "tables"
        if kind not in self._kubernetes or _POD_TAG in tags:
            return {}
        return {_POD_TAG: json.dumps(self._kubernetes[kind])}


def _groups(context: SubmitRunContext) -> dict[AssetKey, str] | None:
    """Return the group of each asset that the run makes; None if the run keeps the tags it has.

    A daemon that is shutting down empties its workspace while its sensors still launch runs. Runs
    that sensors and schedules request already have the tags.
    """
    run, graph = context.dagster_run, context.workspace.asset_graph
    selected = run.asset_selection
    if selected is None:  # all assets of the job
        selected = graph.asset_keys_for_job(run.job_name)
    unknown = {key for key in selected if not graph.has(key)}
    if unknown and {PARSE_TAG, TABLES_TAG, URGENT_TABLES_TAG} & run.tags.keys():
        return None
    made = graph.materializable_asset_keys & selected
    return {key: graph.get(key).group_name for key in made} | {key: key.path[0] for key in unknown}


def limit_tags(tags: Mapping[str, str], groups: Mapping[AssetKey, str]) -> dict[str, str]:
    """Return the tags that the limits of the run queue apply to.

    Args:
        tags: The run's tags.
        groups: The group, an experiment, of each asset that the run makes.

    Returns:
        The priority, for a run that waits for parsers; the experiments, for a run that makes
        tables. A run that does both gets only the former: it would occupy a slot for tables while
        it waits for hours.
    """
    if any(key.path[0] == PARSED for key in groups):
        return {PARSE_TAG: priority_of(tags).name.lower()}
    experiments = "+".join(sorted(set(groups.values())))
    return {tables_tag(tags): experiments} if groups else {}


class GardenerRunLauncher(DefaultRunLauncher):
    """Dagster's launcher of runs as local processes; also checks whether a process is alive.

    The daemon must see the processes that the code server starts: same machine, and in containers
    the same PID namespace. Every run of a code server on another host is reported as running.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Return True: run monitoring calls ``check_run_worker_health`` for started runs."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Return RUNNING while the run's process is alive or unknown, else FAILED."""
        if not _is_on_this_machine(run.tags.get(_CODE_SERVER_TAG)):
            return _running("its code server is on another host: nothing is known of its process")
        worker = self._worker_of(run.run_id)
        if worker is None:
            return _running("its event log does not name its process")
        pid, since = worker
        if _is_alive(pid, since):
            return _running(f"process {pid} is alive")
        return CheckRunHealthResult(
            WorkerStatus.FAILED,
            f"process {pid} of the run is gone: it was killed, or the machine was restarted",
            run_worker_id=str(pid),
        )

    def _worker_of(self, run_id: str) -> tuple[int, datetime] | None:
        """Return the PID of the run's process and the time when it reported its start."""
        records = self._instance.get_records_for_run(
            run_id, of_type=DagsterEventType.ENGINE_EVENT, limit=20, ascending=True
        ).records
        for record in records:
            event = record.event_log_entry.dagster_event
            metadata = event.engine_event_data.metadata if event else {}
            if "pid" in metadata:
                at = datetime.fromtimestamp(record.event_log_entry.timestamp, UTC)
                return int(str(metadata["pid"].value)), at
        return None


def _running(why: str) -> CheckRunHealthResult:
    return CheckRunHealthResult(WorkerStatus.RUNNING, why)


def _is_on_this_machine(code_server: str | None) -> bool:
    """Whether the code server in the tag's value runs on this machine."""
    if code_server is None:
        return False
    server = json.loads(code_server)
    own = {"localhost", "127.0.0.1", "::1", socket.gethostname(), socket.getfqdn()}
    return "socket" in server or server.get("host") in own


def _is_alive(pid: int, since: datetime) -> bool:
    """Whether the process that started by ``since`` is alive; one that reuses its PID is not it."""
    try:
        process = psutil.Process(pid)
        started = datetime.fromtimestamp(process.create_time(), UTC)
        zombie = process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    return not zombie and started <= since + _CLOCK_TOLERANCE
