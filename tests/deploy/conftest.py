"""Cloud Storage for the tests of this folder."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from postgres import free_port
from waiting import until

from gardener_dagster.local.clients import PROJECT


@pytest.fixture(scope="module")
def storage_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Cloud Storage on this machine."""
    folder: Path = tmp_path_factory.mktemp("storage")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        sys.executable, "-m", "gardener_dagster.local.storage_server",
        f"--port={port}", f"--data={folder}",
    ]  # fmt: skip

    def answers() -> bool:
        try:
            return requests.get(f"{url}/storage/v1/b?project={PROJECT}", timeout=2).ok
        except requests.ConnectionError:
            return False

    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until(answers, "the storage does not answer", 60)
            yield url
        finally:
            process.kill()
