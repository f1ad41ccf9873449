"""Cloud Storage on this machine: gcp-storage-emulator, with what Go's clients need besides.

Run it with ``python -m gardener_dagster.local.storage_server --help``.
"""

import argparse
import json
import shutil
from functools import partial
from http.server import HTTPServer
from pathlib import Path

from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.settings import STORAGE_DIR
from gcp_storage_emulator.storage import Storage

_RESUME_INCOMPLETE = 308


class ListOfObjects:
    """A copy of the emulator's list of all objects, made before each request.

    The emulator writes its list in place. If its process is killed during a write, the list is
    incomplete, and the next start restores the copy. Only the interrupted change is lost, and it
    was not yet confirmed to the client.
    """

    def __init__(self, folder: Path) -> None:
        """Restore the copy if the list is not JSON; must run before the emulator reads it."""
        self._list = folder / STORAGE_DIR / ".meta"
        self._before = self._list.with_name(".meta.before")
        self._kept: tuple[int, int] | None = None  # the list's modification time (ns) and size
        if self._before.exists() and not _is_json(self._list):
            shutil.copyfile(self._before, self._list)

    def keep(self) -> None:
        """Copy the list if it has changed since the last copy."""
        if not self._list.exists():
            return
        status = self._list.stat()
        found = (status.st_mtime_ns, status.st_size)
        if found != self._kept:
            copy = self._list.with_name(".meta.copy")
            shutil.copyfile(self._list, copy)
            copy.replace(self._before)
            self._kept = found


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    return True


class StorageHandler(RequestHandler):  # type: ignore[misc]  # the emulator has no types
    """Answers one request."""

    timeout = 30.0  # seconds without a byte from the client; all other clients wait meanwhile

    def __init__(self, storage: Storage, objects: ListOfObjects, *connection: object) -> None:
        self._objects = objects
        super().__init__(storage, *connection)

    def handle_one_request(self) -> None:
        """Copy the list of objects, then answer a request."""
        self._objects.keep()
        super().handle_one_request()

    def send_response(self, code: int, message: str | None = None) -> None:
        """Start the response; replace status 308 for Go's clients.

        The emulator confirms a chunk of an upload with status 308, as Python's clients expect. Go's
        clients treat 308 as a redirect: they request status 200 with the 308 in a header
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

    def __init__(self, address: tuple[str, int], folder: Path) -> None:
        """Bind the port and open the folder.

        Args:
            address: Host and port; port 0: any free port.
            folder: Folder of the buckets and objects; it is created if it is missing.
        """
        objects = ListOfObjects(folder)
        storage = Storage(data_dir=str(folder.resolve()))
        super().__init__(address, partial(StorageHandler, storage, objects))


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(prog="gardener_dagster.local.storage_server")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", required=True, type=Path, help="folder of the buckets")
    options = parser.parse_args()
    with StorageServer((options.host, options.port), options.data) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
