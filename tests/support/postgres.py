"""A real PostgreSQL server for tests that want one; skips, with the reason, where it is missing."""

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

START_SECONDS = 60.0


@contextlib.contextmanager
def postgresql(*settings: str) -> Iterator[str]:
    """A server of its own; the URL of its database.

    Args:
        settings: Of the server, like ``fsync=off``.
    """
    with postgresql_server(*settings) as server:
        yield server.url


def free_port() -> int:
    """A port for a server that is to be reached over TCP (``port=``, ``listen_addresses=``)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def empty_database(server: str) -> Iterator[str]:
    """A database of a server for one test; the URL of it.

    Args:
        server: The URL of another database of the server.
    """
    name = f"test_{next(_databases)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


_databases = itertools.count(1)


@contextlib.contextmanager
def postgresql_server(*settings: str) -> Iterator["Server"]:
    """A server of its own, running; gone at the end.

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
    server = Server(programs=Path(found).parent, folder=folder, user=user, settings=settings)
    try:
        server.make()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


def _unprivileged() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@dataclass(kw_only=True)
class Server:
    """A server that can be stopped, and started again on what it has."""

    programs: Path
    folder: Path
    user: str | None
    settings: Sequence[str]
    _process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        """Of its database, by its socket."""
        return f"postgresql://gardener@/postgres?host={self.folder}&port={self.port}"

    @property
    def port(self) -> str:
        """Of its socket, too."""
        ports = [s.removeprefix("port=") for s in self.settings if s.startswith("port=")]
        return ports[-1] if ports else "5432"

    @property
    def pid(self) -> int:
        """Of its first process; those of connections are its children."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = ("listen_addresses=", *self.settings)  # a later one of a name counts
        options = [word for setting in settings for word in ("-c", setting)]
        data = self.folder / "data"
        command: list[str | Path] = [
            self.programs / "postgres", "-D", data, "-k", self.folder, *options
        ]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, user=self.user, cwd=self.folder, stderr=log, start_new_session=True
            )
        await_answer(self.url, self._process, self.folder / "log")

    def stop(self) -> None:
        """End it as a restart does: connections are cut. Nothing, where it does not run."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(START_SECONDS)

    def make(self) -> None:
        """Make its files."""
        subprocess.run(
            [
                self.programs / "initdb", "-D", self.folder / "data", "-U", "gardener",
                "-A", "trust", "--no-sync",
            ],
            check=True,
            user=self.user,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip


def await_answer(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until a server that was started answers; else the test fails with its log."""
    deadline = time.monotonic() + START_SECONDS
    while not _answers(url):
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(log.read_text())
        time.sleep(0.02)


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True
