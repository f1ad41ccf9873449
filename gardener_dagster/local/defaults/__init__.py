"""The configuration files of the laptop stack, for who has only the package."""

from importlib.resources import files
from pathlib import Path

NAMES = ("gardener.yml", "dagster.yaml", "workspace.yaml")


def find(name: str) -> Path:
    """Return a configuration file: the one in the working folder, or else the package's."""
    own = Path(name)
    return own if own.is_file() else Path(str(files(__name__) / name))


def write_all(folder: Path) -> list[Path]:
    """Write all files into a folder, which is made if it is missing.

    Returns:
        The files.

    Raises:
        FileExistsError: One of them is there already; nothing was written.
    """
    paths = [folder / name for name in NAMES]
    for path in paths:
        if path.exists():
            raise FileExistsError(f"{path} is there already")
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        path.write_bytes((files(__name__) / path.name).read_bytes())
    return paths
