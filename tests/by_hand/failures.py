"""What an engineer on call sees of each kind of failure: run by hand, prints a table.

    PYTHONPATH=tests/support .venv/bin/python tests/by_hand/failures.py \
        [--only "sidecar down"] [--pictures DIR]

It provokes the failures in a running stack, one after the other, and writes down word for word what
the status page, Dagster and the alerts say of each. It takes a quarter of an hour, most of it since
BigQuery's rate limits are given ten minutes to pass.
"""

import argparse
import datetime as dt
import json
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import requests
from stage import GOOD, ONE_DAY, Stage, day, staged
from waiting import until
from witness import answer

from gardener_api.jobs.job import Job, JobState
from gardener_dagster.local.clients import storage_client


@dataclass(kw_only=True)
class Row:
    """A row of the table: what was done, and what is then seen where."""

    kind: str
    how: str
    status: list[str] = field(default_factory=list)
    dagster: list[str] = field(default_factory=list)
    alert: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        cells = [[self.kind], [self.how], self.status, self.dagster, self.alert]
        texts = ("<br>".join(cell) or "nothing" for cell in cells)
        return (
            f"| {' | '.join(text.replace('|', '∣').replace(chr(10), '<br>') for text in texts)} |"
        )


HEAD = "| failure | provoked by | status page | Dagster | alert |\n|---|---|---|---|---|"


def look_at_job(stage: Stage, row: Row, job: Job, *, about: str) -> None:
    """Status page and alert of a job that failed."""
    name = row.kind.replace(" ", "-")
    row.status += stage.witness.overview(name, about=about)
    row.status += [f"job: {line}" for line in stage.witness.job(job.number, name)]
    row.alert += stage.witness.told(str(job.key.date))


def look_at_run(stage: Stage, row: Row, run_id: str) -> None:
    """Dagster's page of a run that failed."""
    row.dagster += stage.witness.failures(run_id)
    stage.witness.picture(f"/runs/{run_id}", f"{row.kind.replace(' ', '-')}-run")


def overwrite(archive: Path) -> None:
    archive.write_bytes(b"this is no archive")


def parser_error(stage: Stage) -> Iterator[Row]:
    date = day(10)
    stage.samples(date, spoil=overwrite)
    run_id = stage.parse(date)
    until(lambda: stage.ended(date, "ndt7"), "no end")
    row = Row(kind="parser error", how="all archives of a date are damaged")
    look_at_job(stage, row, stage.newest(date), about="archives could be read")
    look_at_run(stage, row, run_id)
    yield row


def lost_parser(stage: Stage) -> Iterator[Row]:
    date = day(11)
    stage.samples(date)
    stage.stop_worker()
    run_id = stage.parse(date)
    row = Row(
        kind="lost parser", how="each parser is killed after `next`; three leases of 10 s end"
    )
    until(lambda: stage.job(date, "ndt7") is not None, "no job")
    while not stage.ended(date):
        with stage.held_parser("/o?") as part:
            until(
                lambda: any("begun" in line for line in part.last_lines()) or stage.ended(date),
                "no job was taken",
            )
            part.signal(signal.SIGKILL)
    look_at_job(stage, row, stage.newest(date), about="lease ended")
    look_at_run(stage, row, run_id)
    stage.start_worker()
    yield row


def spoiled_rows(
    stage: Stage, date: dt.date, kind: str, how: str, spoil: Callable[[str], str]
) -> Row:
    stage.parse_spoiled(date, spoil)
    row = Row(kind=kind, how=how)
    failed = stage.newest(date)
    look_at_job(stage, row, failed, about=str(date))
    look_at_run(stage, row, stage.tables_run(failed).run_id)
    return row


def bad_row(stage: Stage) -> Iterator[Row]:
    how = "a parser writes a row that is cut off"
    yield spoiled_rows(stage, day(13), "bad JSON row", how, lambda row: row[: len(row) // 2])


def missing_field(stage: Stage) -> Iterator[Row]:
    def add(row: str) -> str:
        return json.dumps(json.loads(row) | {"NewField": 1})

    how = "a parser writes a field that the schema lacks"
    yield spoiled_rows(stage, day(15), "missing field", how, add)


def rate_limit(stage: Stage) -> Iterator[Row]:
    date = day(17)
    fault = {
        "action": "job_error", "job_type": "copy", "labels": {"date": f"{date:%Y%m%d}"},
        "status": 403, "reason": "rateLimitExceeded", "times": 10_000,
        "message": "Exceeded rate limits: too many table update operations for this table.",
    }  # fmt: skip
    requests.post(f"{stage.settings.bigquery_url}/faults", json=fault, timeout=10)
    stage.samples(date)
    stage.parse(date)
    row = Row(kind="rate limit exhausted", how="BigQuery refuses each copy of the date")
    yield row  # the others meanwhile
    until(lambda: stage.ended(date), "no end", seconds=1200)
    job = stage.newest(date)
    look_at_job(stage, row, job, about=str(date))
    look_at_run(stage, row, stage.tables_run(job).run_id)


def missing_archives(stage: Stage) -> Iterator[Row]:
    row = Row(kind="missing archives", how="a date has none, the three days before have")
    date = GOOD[-1] + ONE_DAY
    stage.parse(date)
    until(lambda: stage.ended(date), "no end")
    row.status += stage.witness.overview("missing-archives", about=str(date))
    row.alert += stage.witness.told(str(date))
    row.dagster += stage.witness.checks(stage.tables_run(stage.newest(date)).run_id)
    yield row


def unlisted_archives(stage: Stage) -> Iterator[Row]:
    with storage_client(stage.settings.storage_url) as client:
        client.bucket("archive-of-nobody").delete()
    date = day(21)
    row = Row(kind="archives cannot be listed", how="a source's bucket is not there")
    run_id = stage.ui.launch([("parsed", "ndt", "hopannotation2")], date, date)
    row.alert += stage.witness.told(str(date))
    row.status += stage.witness.overview("no-bucket", about="hopannotation2")
    look_at_run(stage, row, run_id)
    yield row


def sidecar_down(stage: Stage) -> Iterator[Row]:
    date = day(7)
    stage.samples(date)
    sidecar = stage.processes.part("sidecar")
    sidecar.signal(signal.SIGKILL)
    until(sidecar.group_is_gone, "it does not end")
    run_id = stage.parse(date)
    row = Row(kind="sidecar down", how="it is killed; a date is asked for")
    witness = stage.witness
    until(lambda: stage.job(date) is not None, "no job")
    until(lambda: "GardenerMissing" in witness.prometheus_alerts(), "Prometheus sees nothing", 400)
    row.status += witness.overview("sidecar-down")
    row.dagster += [f"run of parse: {line}" for line in witness.log(run_id)]
    witness.picture(f"/runs/{run_id}", "sidecar-down-run")
    row.alert += [f"{k}: {v}" for k, v in witness.prometheus_alerts().items()]
    row.alert += [f"parser's log: {line}" for line in stage.worker.last_lines()[-1:]]
    sidecar.process = None
    sidecar.start()
    until(lambda: stage.ended(date), "no end after it is back")
    yield row


def postgresql_down(stage: Stage) -> Iterator[Row]:
    date, other = day(5), day(4)
    stage.samples(date, other)
    slow = {
        "action": "delay",
        "job_type": "load",
        "labels": {"date": f"{other:%Y%m%d}"},
        "seconds": 25,
    }
    requests.post(f"{stage.settings.bigquery_url}/faults", json=slow | {"times": 2}, timeout=10)
    stage.parse(other)
    until(lambda: (job := stage.job(other)) and job.state is JobState.LOADING, "no tables")
    stage.worker.signal(signal.SIGSTOP)
    run_id = stage.parse(date)
    until(lambda: stage.job(date) is not None, "no job")
    row = Row(
        kind="PostgreSQL down", how="it is stopped while a date waits for a parser, another loads"
    )
    witness = stage.witness
    stage.database.stop()
    until(lambda: "GardenerMissing" in witness.prometheus_alerts(), "Prometheus sees nothing", 400)
    until(lambda: witness.tick("parsed_jobs"), "no tick fails")
    row.status += witness.overview("postgresql-down")
    row.status += [f"/ready: {answer(stage.settings.jobs_url + '/ready')}"]
    row.dagster += [f"sensor parsed_jobs: {witness.tick('parsed_jobs')}"]
    row.dagster += [f"run of parse: {line}" for line in witness.log(run_id)]
    sensor = "/locations/__repository__@gardener/sensors/parsed_jobs"
    witness.picture(sensor, "postgresql-down-sensor", opened="View")
    witness.picture(f"/runs/{run_id}", "postgresql-down-run")
    row.alert += [f"{k}: {v}" for k, v in witness.prometheus_alerts().items()]
    stage.database.start()
    stage.worker.signal(signal.SIGCONT)
    until(lambda: stage.ended(date) and stage.ended(other), "no end after it is back")
    jobs = [stage.newest(date), stage.newest(other)]
    row.status += [f"once it is back: {j.key.date} {j.state} {j.error}" for j in jobs]
    yield row


def daemon_restarted(stage: Stage) -> Iterator[Row]:
    """Nothing is told twice, and what comes after is told once."""
    hook = stage.witness.hook
    before = len(hook.told)
    daemon = stage.processes.part("daemon")
    daemon.signal(signal.SIGTERM)
    until(lambda: daemon.exit_code is not None, "the daemon does not end")
    date = day(9)
    stage.samples(date, spoil=overwrite)
    stage.parse(date)
    daemon.process = None
    daemon.start()
    until(lambda: stage.ended(date, "ndt7"), "no end")
    row = Row(kind="daemon restarted", how="a run fails after it, as in the first row")
    row.alert += stage.witness.told(str(date))
    until(lambda: stage.ended(date), "no end")
    row.alert += [f"{len(hook.told) - before} new alert, none of before again"]
    yield row


FAILURES: dict[str, Callable[[Stage], Iterator[Row]]] = {
    "rate limit": rate_limit,  # first: the others happen while it is waited for
    "parser error": parser_error,
    "lost parser": lost_parser,
    "bad row": bad_row,
    "missing field": missing_field,
    "missing archives": missing_archives,
    "unlisted archives": unlisted_archives,
    "daemon restarted": daemon_restarted,
    "sidecar down": sidecar_down,
    "postgresql down": postgresql_down,
}


def main() -> None:
    """Provokes them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=FAILURES, help="one; all if left out")
    parser.add_argument("--pictures", type=Path, help="folder for screenshots")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gardener-failures-") as name:
        home = Path(name)
        pictures = arguments.pictures or home / "pictures"
        pictures.mkdir(parents=True, exist_ok=True)
        with staged(home, pictures) as stage:
            print(HEAD, flush=True)
            for row in provoke(stage, arguments.only or list(FAILURES)):
                print(row, flush=True)


def provoke(stage: Stage, kinds: list[str]) -> Iterator[Row]:
    """The rows, each when all of it was seen."""
    unfinished = []
    for kind in kinds:
        seen = FAILURES[kind](stage)
        for row in seen:
            if not row.status + row.alert:  # it goes on while the others happen
                unfinished.append((seen, row))
                break
            yield row
    for seen, row in unfinished:
        list(seen)
        yield row


if __name__ == "__main__":
    main()
