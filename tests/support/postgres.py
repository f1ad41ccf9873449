"""A real PostgreSQL server for tests that want one; skips, with the reason, where it is missing."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg
import pytest

START_SECONDS = 60.0


@contextlib.contextmanager
def postgresql(*settings: str) -> Iterator[str]:
    """A server of its own; the URL of its database.

    Args:
        settings: Of the server, like ``fsync=off``.
    """
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = shutil.which("initdb") or (str(programs[-1]) if programs else None)
    if not found:
        pytest.skip("PostgreSQL is not installed: there is no initdb")
    folder = Path(tempfile.mkdtemp(prefix="gardener-postgresql-"))  # a socket's path must be short
    user = _unprivileged() if os.getuid() == 0 else None  # the server refuses to run as root
    if user:
        shutil.chown(folder, user)
    try:
        with _server(Path(found).parent, folder, user, settings) as url:
            yield url
    finally:
        shutil.rmtree(folder)


def _unprivileged() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@contextlib.contextmanager
def _server(
    programs: Path, folder: Path, user: str | None, settings: Sequence[str]
) -> Iterator[str]:
    data = folder / "data"
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", "gardener", "-A", "trust", "--no-sync"],
        check=True,
        user=user,
        cwd=folder,
        stdout=subprocess.DEVNULL,
    )
    options = [word for setting in ("listen_addresses=", *settings) for word in ("-c", setting)]
    command: list[str | Path] = [programs / "postgres", "-D", data, "-k", folder, *options]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, user=user, cwd=folder, stderr=log)
    url = f"postgresql://gardener@/postgres?host={folder}"
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail((folder / "log").read_text())
            time.sleep(0.02)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(START_SECONDS)


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True
