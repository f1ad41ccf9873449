"""A stack for things to go wrong in: on PostgreSQL, with a web hook and a Prometheus."""

import contextlib
import datetime as dt
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
from dagster_instance import instance_at
from dagster_ui import DagsterUI
from gate import gate
from playwright.sync_api import sync_playwright
from postgres import Server, postgresql_server
from waiting import until
from witness import Witness, scraping, web_hook

from gardener_api.client import JobsClient
from gardener_api.config import GardenerConfig, load_config
from gardener_api.jobs.job import ENDED, Job, JobState
from gardener_api.store.store import JobStore
from gardener_dagster.assets.keys import JOB_TAG
from gardener_dagster.local.clients import storage_client
from gardener_dagster.local.demo.upload import upload_archives
from gardener_dagster.local.parser.outputs import ArchiveParser
from gardener_dagster.local.samples.archives import make_samples
from gardener_dagster.local.stack.parts import PARSED_BUCKET, StackSettings, running_stack
from gardener_dagster.local.stack.ports import PREFERRED_PORTS, choose_ports
from gardener_dagster.local.stack.processes import Part, Processes
from gardener_dagster.planning.due_tables import job_key

ROOT = Path(__file__).parent.parent.parent
CONFIG = """
start_date: 2024-01-01
tracker: {timeout: 10s, max_attempts: 3}
monitor: {polling_interval: 2s}
late_archives: {days: 0}
history: {enabled: false}
sources:
- {bucket: archive-mlab, experiment: ndt, datatype: annotation2}
- {bucket: archive-mlab, experiment: ndt, datatype: ndt7, target_datasets: {join: ndt}}
- {bucket: archive-of-nobody, experiment: ndt, datatype: hopannotation2}
"""
ONE_DAY = dt.timedelta(days=1)
TODAY = dt.datetime.now(dt.UTC).date()
PARSED = (("parsed", "ndt", "annotation2"), ("parsed", "ndt", "ndt7"))


def day(ago: int) -> dt.date:
    """A date of the grid of the last 30 days."""
    return TODAY - ago * ONE_DAY


GOOD = (day(28), day(27), day(26))


@dataclass(frozen=True, kw_only=True)
class Settings(StackSettings):
    """A stack on PostgreSQL that tells a web hook."""

    store_url: str
    hook_url: str

    @property
    def database_url(self) -> str:
        """The job store."""
        return self.store_url

    @property
    def environment(self) -> dict[str, str]:
        """With the hook's address."""
        return super().environment | {"GARDENER_ALERT_WEBHOOK": self.hook_url}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stack that things can go wrong in."""

    settings: Settings
    config: GardenerConfig
    processes: Processes
    store: JobStore
    database: Server
    witness: Witness
    worker: Part

    @property
    def ui(self) -> DagsterUI:
        return DagsterUI(url=self.settings.dagster_url)

    def job(self, date: dt.date, datatype: str = "ndt7") -> Job | None:
        return self.store.latest(job_key(self.config.source(f"ndt/{datatype}"), date))

    def newest(self, date: dt.date) -> Job:
        """The job of ndt7, which there is."""
        job = self.job(date)
        if job is None:
            raise RuntimeError(f"there is no job of {date}")
        return job

    def ended(self, date: dt.date, *datatypes: str) -> bool:
        jobs = [self.job(date, datatype) for datatype in datatypes or ("annotation2", "ndt7")]
        return all(job is not None and job.state in ENDED for job in jobs)

    def samples(self, *dates: dt.date, spoil: Callable[[Path], None] = lambda _: None) -> None:
        """Archives of some dates; ``spoil`` gets each of ndt7."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_samples(folder, dates)
            for archive in sorted(folder.glob("ndt/ndt7/*/*/*/*.tgz")):
                spoil(archive)
            upload_archives(folder, self.settings.storage_url, self.config, dates)

    def parse(self, date: dt.date) -> str:
        """Asks for both datatypes of a date; the ID of the run."""
        return self.ui.launch(PARSED, date, date)

    def start_worker(self) -> None:
        self.worker.process = None
        self.worker.start()

    def stop_worker(self) -> None:
        self.worker.signal(signal.SIGTERM)
        until(self.worker.group_is_gone, "the parser does not end")

    def parse_spoiled(self, date: dt.date, spoil: Callable[[str], str]) -> None:
        """Has a date parsed, but ``spoil`` changes the first row of ndt7; until it has ended."""
        self.samples(date)
        self.stop_worker()
        self.parse(date)
        with (
            JobsClient(self.settings.jobs_url) as jobs,
            storage_client(self.settings.storage_url) as client,
        ):
            parser = ArchiveParser(
                client=client, output_bucket=PARSED_BUCKET, now=lambda: dt.datetime.now(dt.UTC)
            )
            done = 0
            while done < len(PARSED):
                job = jobs.next()
                if job is None:
                    continue
                names = [blob.name for blob in client.list_blobs(job.bucket, prefix=job.prefix)]
                for name in names:
                    parser.parse(job, name, lambda: False)
                if job.datatype == "ndt7":
                    blob = client.bucket(PARSED_BUCKET).blob(f"{job.bucket}/{names[0]}.jsonl")
                    first, _, rest = blob.download_as_text().partition("\n")
                    blob.upload_from_string(f"{spoil(first)}\n{rest}")
                jobs.update(job.id, JobState.PARSING)
                jobs.update(job.id, JobState.POST_PROCESSING)
                done += 1
        self.start_worker()
        until(lambda: self.ended(date), "no end")

    @contextlib.contextmanager
    def held_parser(self, hold: str) -> Iterator[Part]:
        """A parser whose calls of Cloud Storage that have ``hold`` in their path get no answer."""
        with gate(self.settings.storage_url, hold=hold) as storage:
            part = Part(
                name="held parser",
                command=self.worker.command,
                environment=self.settings.environment | {"STORAGE_EMULATOR_HOST": storage.url},
                log=self.settings.home / "logs" / "held-parser.log",
            )
            part.start()
            try:
                yield part
            finally:
                part.signal(signal.SIGKILL)
                part.log.unlink()

    def tables_run(self, job: Job) -> dg.DagsterRun:
        [run] = self.witness.runs(**{JOB_TAG: job.id})
        return run


@contextlib.contextmanager
def staged(
    home: Path, pictures: Path, *, config_text: str = CONFIG, dates: Sequence[dt.date] = GOOD
) -> Iterator[Stage]:
    """The stack, with some good dates in it.

    Args:
        home: Folder of its data.
        pictures: Folder of what is looked at.
        config_text: Its configuration; it has annotation2 and ndt7.
        dates: The good ones, one after the other.
    """
    with contextlib.ExitStack() as cleanup:
        hook = cleanup.enter_context(web_hook())
        database = cleanup.enter_context(postgresql_server("fsync=off"))
        (home / "gardener.yml").write_text(config_text, encoding="utf-8")
        config = load_config(home / "gardener.yml")
        ports = choose_ports(dict.fromkeys([*PREFERRED_PORTS, "prometheus"], 0))
        settings = Settings(
            home=home,
            config=home / "gardener.yml",
            dagster_yaml=ROOT / "dagster.yaml",
            ports=ports,
            workers=0,
            faults=True,
            store_url=database.url,
            hook_url=hook.url,
        )
        processes = cleanup.enter_context(running_stack(settings))
        prometheus = cleanup.enter_context(
            scraping(settings, ROOT / "alerts.yml", ports["prometheus"])
        )
        tracker = config.tracker
        store = JobStore.open(
            settings.database_url, lease=tracker.timeout, max_attempts=tracker.max_attempts
        )
        cleanup.callback(store.close)
        playwright = cleanup.enter_context(sync_playwright())
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        cleanup.callback(browser.close)
        worker = Part(
            name="worker",
            command=[
                sys.executable, "-m", "gardener_dagster.cli.main", "worker",
                "--api", settings.jobs_url, "--poll", "0.2",
            ],
            environment=settings.environment,
            log=home / "logs" / "worker.log",
        )  # fmt: skip
        processes.parts.append(worker)  # ends with the others
        witness = Witness(
            settings=settings,
            instance=cleanup.enter_context(instance_at(home / "dagster")),
            hook=hook,
            browser=browser,
            prometheus=prometheus,
            pictures=pictures,
        )
        stage = Stage(
            settings=settings,
            config=config,
            processes=processes,
            store=store,
            database=database,
            witness=witness,
            worker=worker,
        )
        stage.samples(*dates)
        stage.start_worker()
        stage.ui.launch(PARSED, dates[0], dates[-1])
        until(lambda: all(stage.ended(date) for date in dates), "the good dates do not end", 600)
        bad = [stage.newest(d) for d in dates if stage.newest(d).state is not JobState.COMPLETE]
        if bad:
            raise RuntimeError(f"dates that should be good: {bad}")
        yield stage
