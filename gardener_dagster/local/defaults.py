"""The configuration files of the laptop stack, for who has only the package."""

from importlib.metadata import files
from pathlib import Path

NAMES = ("gardener.yml", "dagster.yaml", "workspace.yaml")


def find(name: str) -> Path:
    """Return a configuration file: the one in the working folder, or else the package's."""
    own = Path(name)
    return own if own.is_file() else packaged(name)


def packaged(name: str) -> Path:
    """Return the file in the checkout that the code is in, or else the installed one.

    Raises:
        FileNotFoundError: The installation has no such file.
    """
    checkout = Path(__file__).parents[2] / name
    if checkout.is_file():
        return checkout
    for path in files("gardener") or ():
        if path.match(f"share/gardener/{name}"):
            return Path(str(path.locate()))
    raise FileNotFoundError(f"share/gardener/{name} of the package gardener: expected, not found")


def write_all(folder: Path) -> list[Path]:
    """Write all configuration files into a folder, which is created if it is missing.

    Returns:
        The paths of the files.

    Raises:
        FileExistsError: One of them already exists; nothing was written.
        FileNotFoundError: The installation has no such file; nothing was written.
    """
    paths = [folder / name for name in NAMES]
    for path in paths:
        if path.exists():
            raise FileExistsError(f"{path} is there already")
    contents = [packaged(path.name).read_bytes() for path in paths]
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths
