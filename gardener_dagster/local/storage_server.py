"""Cloud Storage on this machine: gcp-storage-emulator, with what Go's clients need besides.

Run it with ``python -m gardener_dagster.local.storage_server --help``.
"""

import argparse
import json
from functools import partial
from http.server import HTTPServer
from pathlib import Path

from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.settings import STORAGE_DIR
from gcp_storage_emulator.storage import Storage

_RESUME_INCOMPLETE = 308


class KeptStorage(Storage):  # type: ignore[misc]  # the emulator has no types
    """Buckets and objects in a folder; a process that is killed while it writes loses none.

    The emulator writes its list of all objects in place, at each change: a process that was killed
    meanwhile would find half a list at its next start. So the list before is kept beside it. What
    is lost is the change that was being made, which no client was told had been made.
    """

    def __init__(self, folder: Path) -> None:
        """Open the folder; it is made where it is missing."""
        self._list = folder / STORAGE_DIR / ".meta"
        self._before = self._list.with_name(".meta.before")
        if self._before.exists() and not _is_json(self._list):
            self._before.replace(self._list)
        super().__init__(data_dir=str(folder.resolve()))

    def _write_config_to_file(self) -> None:
        if self._list.exists():
            self._list.replace(self._before)
        super()._write_config_to_file()


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    return True


class StorageHandler(RequestHandler):  # type: ignore[misc]  # the emulator has no types
    """Answers one request."""

    def send_response(self, code: int, message: str | None = None) -> None:
        """Begin the answer.

        The emulator says "the chunk has arrived, send the next one" with status 308, which Python's
        clients expect. To Go's, 308 is a redirect: they ask for 200 and the status in a header
        (``google.golang.org/api/internal/gensupport``, ``resumable.go``).
        """
        wants_no_308 = self.headers.get("X-GUploader-No-308", "").casefold() == "yes"
        if code == _RESUME_INCOMPLETE and wants_no_308:
            super().send_response(200, "OK")
            self.send_header("X-Http-Status-Code-Override", str(code))
        else:
            super().send_response(code, message)


class StorageServer(HTTPServer):
    """The server: one request at a time, since the emulator's store has no locks."""

    request_queue_size = 128  # several parsers connect at once; the default is 5

    def __init__(self, address: tuple[str, int], storage: Storage) -> None:
        """Bind the port.

        Args:
            address: Host and port; port 0: any that is free.
            storage: Where buckets and objects are.
        """
        super().__init__(address, partial(StorageHandler, storage))


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(prog="gardener_dagster.local.storage_server")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", required=True, type=Path, help="folder of the buckets")
    options = parser.parse_args()
    with StorageServer((options.host, options.port), KeptStorage(options.data)) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
