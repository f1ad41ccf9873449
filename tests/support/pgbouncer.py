"""PgBouncer, a pool of connections, in front of a PostgreSQL server of the tests."""

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from postgres import START_SECONDS, Server, free_port
from sqlalchemy import make_url

SETTINGS = """\
[databases]
* = host={server} user=gardener
[pgbouncer]
unix_socket_dir = {folder}
listen_port = {port}
auth_type = any
pool_mode = session
default_pool_size = 90
max_client_conn = 1000
log_connections = 0
log_disconnections = 0
"""
"""A client keeps its server's connection as long as it is connected, so that ``SET search_path`` of
the job store and Dagster's ``LISTEN`` mean what they do without a pool."""


@contextlib.contextmanager
def pgbouncer(server: Server) -> Iterator[tuple[str, int]]:
    """A pool in front of a server; the URL of its database through it, and the pool's process."""
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if not program:
        pytest.skip("PgBouncer is not installed")
    folder, port = Path(tempfile.mkdtemp(prefix="gardener-pgbouncer-")), free_port()
    if server.user:
        shutil.chown(folder, server.user)
    settings = folder / "pgbouncer.ini"
    settings.write_text(SETTINGS.format(server=server.folder, folder=folder, port=port))
    url = make_url(server.url).update_query_dict({"host": str(folder), "port": str(port)})
    text = url.render_as_string(hide_password=False).replace("%2F", "/")
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [program, settings], user=server.user, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(text):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail((folder / "log").read_text())
            time.sleep(0.02)
        yield text, process.pid
    finally:
        process.terminate()
        process.wait(START_SECONDS)
        shutil.rmtree(folder)


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True
