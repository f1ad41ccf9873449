"""Re-parses that would make published partitions worse, as real processes: held, then decided on.

A stack of its own: it is killed as a whole while decisions are carried out. One story, told once by
the fixture ``story``.
"""

import datetime as dt
import io
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from dagster_instance import instance_at
from dagster_ui import DagsterUI
from google.cloud import storage
from stack_client import StackClient
from stacks import CONFIG, new_stack, started
from waiting import until

from gardener_api.jobs.job import Job, JobState
from gardener_api.store.publishing.held import HeldPartition, Outcome
from gardener_dagster.assets.keys import DECISION_TAG
from gardener_dagster.local.clients import storage_client
from gardener_dagster.local.demo.upload import upload_archives
from gardener_dagster.local.samples.archives import make_samples
from gardener_dagster.planning.due_tables import job_key

ACCEPTED, REJECTED, DOUBLED, BARE = (dt.date(2024, 4, day) for day in (1, 2, 3, 4))
"""The dates: two lose rows, one gets ids twice, one loses its annotations."""
DATES = (ACCEPTED, REJECTED, DOUBLED, BARE)
BUCKET = "archive-mlab"
FINER_KEY = CONFIG.replace("target_datasets: {join: ndt}}", (
    "target_datasets: {join: ndt}, dedup_key: [id, parser.ArchiveURL]}"
))  # fmt: skip
SECONDS = 300.0
"""For each part of the story, on a busy machine."""
Rows = dict[tuple[str, dt.date], int]


@dataclass(kw_only=True)
class Story:
    """What happened."""

    before: Rows = field(default_factory=dict)
    held: dict[dt.date, HeldPartition] = field(default_factory=dict)
    while_held: Rows = field(default_factory=dict)
    staged: Rows = field(default_factory=dict)
    page: str = ""
    listed: list[dict[str, Any]] = field(default_factory=list)
    metrics: str = ""
    runs_say: list[str] = field(default_factory=list)
    cli: dict[str, str] = field(default_factory=dict)
    after: Rows = field(default_factory=dict)
    jobs: dict[dt.date, Job] = field(default_factory=dict)
    outcomes: dict[dt.date, list[Outcome | None]] = field(default_factory=dict)
    join_held: HeldPartition | None = None
    annotated: tuple[int, int] = (0, 0)  # before, and while the join is held


def first_members(archive: bytes, *, share: float) -> bytes:
    """An archive with that share of the members of another one."""
    content = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(archive)) as old,
        tarfile.open(fileobj=content, mode="w:gz") as new,
    ):
        members = old.getmembers()
        for member in members[: round(share * len(members))]:
            new.addfile(member, old.extractfile(member))
    return content.getvalue()


class Teller:
    """Does what happens."""

    def __init__(self, stack: StackClient, story: Story) -> None:
        self.stack, self.story = stack, story
        self.ui = DagsterUI(url=stack.settings.dagster_url)

    def job(self, date: dt.date, datatype: str = "ndt7") -> Job | None:
        return self.stack.store.latest(job_key(self.stack.config.source(f"ndt/{datatype}"), date))

    def rows(self, *tables: str) -> Rows:
        return {(t, date): self.stack.value(t, date) for t in tables for date in DATES}

    def annotated(self) -> int:
        return self.stack.value("ndt.ndt7", BARE, "COUNTIF(server.Site IS NOT NULL)")

    def double_archives(self, date: dt.date) -> None:
        """Gives each of the date's archives a second name."""
        for blob in self.archives(date, "ndt7"):
            folder, _, name = blob.name.rpartition("/")
            copy = blob.bucket.blob(f"{folder}/second-{name}")
            copy.upload_from_string(blob.download_as_bytes())

    def cut_archives(self, date: dt.date, datatype: str = "ndt7") -> None:
        """Takes the last members of each of the date's archives away: 30 % of them."""
        for blob in self.archives(date, datatype):
            blob.upload_from_string(first_members(blob.download_as_bytes(), share=0.7))

    def archives(self, date: dt.date, datatype: str) -> list[storage.Blob]:
        with storage_client(self.stack.settings.storage_url) as client:
            return list(client.list_blobs(BUCKET, prefix=f"ndt/{datatype}/{date:%Y/%m/%d}/"))

    def parse(self, first: dt.date, last: dt.date, *datatypes: str) -> None:
        self.ui.launch([["parsed", "ndt", datatype] for datatype in datatypes], first, last)

    def complete(self) -> bool:
        jobs = [self.job(date, name) for date in DATES for name in ("ndt7", "annotation2")]
        return all(job is not None and job.state is JobState.COMPLETE for job in jobs)

    def is_held(self, date: dt.date, datatype: str = "ndt7") -> bool:
        job = self.job(date, datatype)
        return job is not None and job.state is JobState.FAILED

    def gardener(self, command: str, date: dt.date, *more: str, source: str = "ndt/ndt7") -> str:
        done = subprocess.run(
            [
                sys.executable, "-m", "gardener_dagster.cli.main", command, "--source", source,
                "--dates", date.isoformat(), *more,
            ],
            env=self.stack.settings.environment,
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done
        return done.stdout

    def publish(self) -> None:
        until(self.complete, "the first versions are not made", SECONDS)
        self.story.before = self.rows("raw_ndt.ndt7", "ndt.ndt7")

    def parse_worse(self) -> None:
        self.cut_archives(ACCEPTED)
        self.cut_archives(REJECTED)
        self.double_archives(DOUBLED)
        self.parse(ACCEPTED, DOUBLED, "ndt7")
        worse = (ACCEPTED, REJECTED, DOUBLED)
        until(lambda: all(map(self.is_held, worse)), "they are not held", SECONDS)
        self.story.held = {h.key.date: h for h in self.stack.store.held.waiting()}
        self.story.while_held = self.rows("raw_ndt.ndt7", "ndt.ndt7")
        self.story.staged = self.rows("tmp_ndt.ndt7")
        url = self.stack.settings.status_url
        self.story.page = requests.get(url, timeout=30).text
        self.story.listed = requests.get(f"{url}/api/held", timeout=30).json()["held"]
        self.story.metrics = requests.get(
            f"http://127.0.0.1:{self.stack.settings.ports['metrics']}/metrics", timeout=30
        ).text
        until(lambda: not self.stack.dagster.runs_in_progress(), "runs go on")
        run_ids = {held.run_id for held in self.story.held.values()}
        self.story.runs_say = [text for run_id in run_ids for text in self.ui.failures(run_id)]

    def decide(self) -> None:
        reason = ("--reason", "a box died", "--by", "ada")
        self.story.cli["accept"] = self.gardener("accept", ACCEPTED, *reason)
        self.story.cli["reject"] = self.gardener("reject", REJECTED, *reason)
        self.story.cli["status"] = self.gardener("status", REJECTED)

    def until_carried_out(self) -> None:
        until(lambda: not self.stack.store.held.decided(), "nobody carries it out", SECONDS)

    def see_what_came_of_it(self) -> None:
        def joined() -> bool:
            job = self.job(ACCEPTED)
            return job is not None and job.state is JobState.COMPLETE

        until(joined, "what was accepted is not joined", SECONDS)
        self.story.after = self.rows("tmp_ndt.ndt7", "raw_ndt.ndt7", "ndt.ndt7")
        jobs = {date: self.job(date) for date in DATES}
        self.story.jobs = {date: job for date, job in jobs.items() if job}
        self.story.outcomes = {
            date: [held.outcome for held in self.stack.store.held.of(job.key)]
            for date, job in self.story.jobs.items()
        }

    def lose_annotations(self) -> None:
        before = self.annotated()
        self.cut_archives(BARE, "annotation2")
        self.parse(BARE, BARE, "annotation2")
        until(lambda: self.is_held(BARE, "annotation2"), "annotations are not held", SECONDS)
        self.gardener("accept", BARE, source="ndt/annotation2")

        def join_held() -> bool:
            waiting = [h for h in self.stack.store.held.waiting() if h.table == "ndt.ndt7"]
            self.story.join_held = waiting[0] if waiting else None
            return bool(waiting)

        until(join_held, "the join is not held", SECONDS)
        self.story.annotated = (before, self.annotated())


@pytest.fixture(scope="module")
def story(own_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    settings = new_stack(tmp_path_factory.mktemp("held"), FINER_KEY, postgresql=own_database)
    folder: Path = settings.home / "archives"
    make_samples(folder, DATES)
    told = Story()
    with started(settings) as stack:
        upload_archives(folder, settings.storage_url, stack.config, DATES)
        teller = Teller(stack, told)
        teller.ui.turn("late_archives", on=False)
        teller.parse(DATES[0], DATES[-1], "annotation2", "ndt7")
        teller.publish()
        teller.parse_worse()
        teller.decide()
        with instance_at(settings.home / "dagster") as instance:
            until(
                lambda: any(DECISION_TAG in run.tags for run in instance.get_runs(limit=20)),
                "no run carries out a decision",
            )
        stack.processes.kill_all()
    with started(settings) as stack:
        teller = Teller(stack, told)
        teller.until_carried_out()
        teller.see_what_came_of_it()
        teller.lose_annotations()
        yield told


def test_what_is_worse_is_not_published(story: Story) -> None:
    assert story.while_held == story.before
    assert set(story.held) == {ACCEPTED, REJECTED, DOUBLED}
    left = story.staged["tmp_ndt.ndt7", ACCEPTED] / story.before["raw_ndt.ndt7", ACCEPTED]
    assert 0.65 < left < 0.75
    for date in (ACCEPTED, REJECTED):
        audits = {finding.audit for finding in story.held[date].findings}
        assert {"rows_of_previous", "ids_of_previous"} <= audits
    assert [f.audit for f in story.held[DOUBLED].findings] == ["unique_ids"]


def test_everybody_says_why_and_what_to_do(story: Story) -> None:
    rows, before = story.staged["tmp_ndt.ndt7", ACCEPTED], story.before["raw_ndt.ndt7", ACCEPTED]
    numbers = f"{rows:,} rows, "
    assert "Waiting for a decision: 3" in story.page
    assert numbers in story.page
    assert f"gardener accept --source ndt/ndt7 --dates {ACCEPTED}" in story.page
    [accepted] = [each for each in story.listed if each["date"] == ACCEPTED.isoformat()]
    numbers_of = {finding["audit"]: finding["numbers"] for finding in accepted["findings"]}
    assert numbers_of["rows_of_previous"]["rows"] == rows < before
    assert 'gardener_held_partitions{datatype="ndt7",experiment="ndt"} 3.0' in story.metrics
    said = "\n".join(story.runs_say)
    for date in (ACCEPTED, REJECTED, DOUBLED):
        assert f"{date}: held: " in said
    assert "gardener accept --source ndt/ndt7" in said
    assert f"ndt/ndt7 {ACCEPTED} raw_ndt.ndt7: accepted by ada" in story.cli["accept"]
    assert f"accepted: rows_of_previous: {numbers}" in story.cli["accept"]
    assert "rejected: raw_ndt.ndt7: by ada: a box died" in story.cli["status"]


def test_accept_publishes_exactly_the_held_rows_though_all_was_killed(story: Story) -> None:
    held = story.staged["tmp_ndt.ndt7", ACCEPTED]
    assert story.after["raw_ndt.ndt7", ACCEPTED] == story.after["ndt.ndt7", ACCEPTED] == held
    assert story.after["tmp_ndt.ndt7", ACCEPTED] == 0
    assert story.outcomes[ACCEPTED] == [Outcome.PUBLISHED]


def test_reject_leaves_no_trace_in_the_tables(story: Story) -> None:
    assert story.after["tmp_ndt.ndt7", REJECTED] == 0
    for table in ("raw_ndt.ndt7", "ndt.ndt7"):
        assert story.after[table, REJECTED] == story.before[table, REJECTED]
    assert story.jobs[REJECTED].state is JobState.FAILED
    assert story.outcomes[REJECTED] == [Outcome.REJECTED]


def test_what_nobody_decides_stays(story: Story) -> None:
    assert story.outcomes[DOUBLED] == [None]
    assert story.after["tmp_ndt.ndt7", DOUBLED] == story.staged["tmp_ndt.ndt7", DOUBLED]
    assert story.after["raw_ndt.ndt7", DOUBLED] == story.before["raw_ndt.ndt7", DOUBLED]


def test_a_join_that_would_lose_annotations_is_held(story: Story) -> None:
    assert story.join_held is not None
    assert story.join_held.key.date == BARE
    assert [f.audit for f in story.join_held.findings] == ["annotated_of_previous"]
    before, while_held = story.annotated
    assert before == while_held > 0
