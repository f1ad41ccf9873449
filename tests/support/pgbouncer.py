"""PgBouncer with the settings of ``deploy/``, in front of a PostgreSQL server of the tests."""

import configparser
import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres import START_SECONDS, Server, await_answer, free_port

SETTINGS = Path(__file__).parent.parent.parent / "deploy/pgbouncer.ini"
PASSWORD = "secret"


@contextlib.contextmanager
def pgbouncer(server: Server) -> Iterator[tuple[str, int]]:
    """A pool in front of a server; the URL of its database through it, and the pool's process."""
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if not program:
        pytest.skip("PgBouncer is not installed")
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix="gardener-pgbouncer-"))
    (folder / "userlist.txt").write_text(f'"gardener" "{PASSWORD}"\n')
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(SETTINGS)
    settings["databases"] = {"*": f"host={server.folder} port={server.port}"}
    settings["pgbouncer"].update(
        {
            "listen_port": str(port),
            "auth_file": str(folder / "userlist.txt"),
            "unix_socket_dir": "",
        }
    )
    with (folder / "pgbouncer.ini").open("w") as file:
        settings.write(file)
    if server.user:
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, server.user)
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [program, folder / "pgbouncer.ini"],
            user=server.user,
            stderr=log,
            start_new_session=True,
        )
    try:
        url = f"postgresql://gardener:{PASSWORD}@127.0.0.1:{port}/postgres"
        await_answer(url, process, folder / "log")
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(START_SECONDS)
        shutil.rmtree(folder)
